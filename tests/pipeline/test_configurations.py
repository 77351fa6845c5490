"""What a user may get wrong: one line that names the key, exit code 2, before any job; and the presets that plan offline."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from directcm.config import load_config
from tests.cifar10 import make_files, pack
from tests.runs import make_run, planned

pytestmark = pytest.mark.pipeline

# A wrong value, two keys that do not go together, a name that would leave the folder; tests/test_config.py has the others.
MALFORMED = {
    "train: {batch_size: many}": "train.batch_size",
    "students: [{N: [7]}]": "students",
    "preset: ../up": "preset",
}


@pytest.mark.parametrize(("text", "key"), MALFORMED.items())
def test_malformed_configurations_end_in_one_line(repository: Path, tmp_path: Path, text: str, key: str) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(text + "\n")
    done = make_run(repository)("snakemake", "--cores", "1", "--configfile", str(overlay))
    assert done.returncode == 2, done.stderr
    # Snakemake says which profile and which files it reads before the Snakefile is run; the rest is ours.
    lines = [
        line
        for line in done.stderr.splitlines()
        if line.strip() and not line.startswith(("Using workflow", "Config file"))
    ]
    assert len(lines) == 1 and lines[0].startswith("directcm: error: config.yaml + ") and key in lines[0], done.stderr
    assert "overlay.yaml: " in lines[0]
    assert not (repository / "results").exists()


def test_the_paper_preset_plans_offline(repository: Path) -> None:
    done = make_run(repository)("snakemake", "--configfile", "workflow/presets/paper.yaml", "-n", "-p")
    assert done.returncode == 0, done.stderr
    jobs = planned(done.stdout + done.stderr)
    # 4,000 start points in shards of 80; 64 shards of samples, and as many of the floor; four networks.
    assert jobs["train"] == 10 and jobs["targets"] == 50 and jobs["reference"] == 128
    assert jobs["features"] == 10 and jobs["features_teacher"] == 2 and jobs["features_data"] == 1
    assert "extractor" not in jobs
    # Five extractors in one pass over a set's images, each with an artefact of its own.
    extractors = load_config(repository / "config.yaml", repository / "workflow/presets/paper.yaml").extractor_names()
    made = [line.split() for line in done.stdout.splitlines() if "directcm features" in line]
    assert len(made) == 13
    for words in made:
        names, outs = (words[words.index(flag) + 1 :][:5] for flag in ("--name", "--out"))
        assert [out.split("/")[3] for out in outs] == names == extractors


def test_without_an_extractor_no_features_are_planned(repository: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "latents.yaml"
    overlay.write_text("preset: latents\nmetrics: [ode_error]\n")
    done = make_run(repository)("snakemake", "-n", "--configfile", "workflow/presets/smoke.yaml", str(overlay))
    assert done.returncode == 0, done.stderr
    jobs = planned(done.stdout + done.stderr)
    assert jobs["evaluate"] == 4 and not {"extractor", "features", "features_data", "features_teacher"} & set(jobs)


def test_the_papers_sweeps_plan_offline(repository: Path) -> None:
    done = make_run(repository)("snakemake", "paper", "--configfile", "workflow/presets/paper.yaml", "-n")
    assert done.returncode == 0, done.stderr
    assert planned(done.stdout + done.stderr)["train"] == 10 + 6 * (3 + 4 + 2)


def test_natural_images_plan_with_the_same_rules(repository: Path) -> None:
    done = make_run(repository)("snakemake", "--configfile", "workflow/presets/photos.yaml", "-n")
    assert done.returncode == 0, done.stderr
    digits = make_run(repository)("snakemake", "-n")
    jobs = set(planned(done.stdout + done.stderr))
    assert "train" in jobs and jobs <= set(planned(digits.stdout + digits.stderr))


def test_cifar10_plans_offline_with_the_same_rules(repository: Path, tmp_path: Path) -> None:
    """As it stands, and on an archive placed by hand, whose missing weights are named before anything is made."""
    run = make_run(repository)
    done = run("snakemake", "--configfile", "workflow/presets/cifar10.yaml", "-n")
    assert done.returncode == 0, done.stderr
    jobs = planned(done.stdout + done.stderr)
    # Three seeds of eleven methods, CM, Direct CM and CD under two more distances, and four trainings with numbers of their own; a pool
    # for each of three couplings.
    assert jobs["data"] == jobs["teacher"] == 1 and jobs["train"] == 3 * (11 + 3 * 2 + 4) and jobs["targets"] == 3 * 40
    assert jobs["reference"] == 2 * 10 and "extractor" not in jobs
    overlay, archive = tmp_path / "mine.yaml", tmp_path / "cifar.tar.gz"
    digest = pack(make_files()[0], archive)
    overlay.write_text(
        f"data: {{url: null, path: '{archive}', sha256: {digest}}}\nevaluation: {{samples: 8, shards: 1, batch_size: 8}}\n"
    )
    files = ["--configfile", "workflow/presets/cifar10.yaml", str(overlay)]
    planning = run("snakemake", "paper", *files, "-n")
    assert planning.returncode == 0, planning.stderr
    found = planned(planning.stdout + planning.stderr)
    assert found["train"] == jobs["train"] and found["reference"] == 2
    pixels = run("snakemake", "--configfile", "workflow/presets/smoke_edm.yaml", "-n")
    assert set(found) <= set(planned(pixels.stdout + pixels.stderr)) | {"figure_sensitivity"}
    done = run("snakemake", *files, "--cores", "1", DIRECTCM_WEIGHTS=str(tmp_path / "weights"))
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1 and "missing weights" in errors[0] and "sha256" in errors[0]
    assert not (repository / "results").exists()


@pytest.mark.parametrize(
    ("preset", "path", "train", "targets"),
    [
        # Three seeds of CM, Direct CM, CD and CT, of CD under another distance and of CT as published; pools by shards.
        ("imagenet64", "data/imagenet64", 3 * (4 + 2), 400_000 // 5_000),
        ("lsun_bedroom", "data/lsun_bedroom", 3 * (4 + 2), 100_000 // 1_000),
        ("lsun_cat", "data/lsun_cat", 3 * (4 + 2), 100_000 // 1_000),
        ("celeba64", "data/celeba", 3 * 5, 160_000 // 5_000),
    ],
)
def test_a_published_data_set_plans_offline(
    repository: Path, tmp_path: Path, preset: str, path: str, train: int, targets: int
) -> None:
    """As it stands; data that are not placed, and an archive without its sha256, are named before anything is made."""
    run, file = make_run(repository), f"workflow/presets/{preset}.yaml"
    done = run("snakemake", "paper", "--configfile", file, "-n")
    assert done.returncode == 0, done.stderr
    jobs = planned(done.stdout + done.stderr)
    assert (jobs["data"], jobs["teacher"], jobs["train"], jobs["targets"]) == (1, 1, train, targets)
    assert "extractor" not in jobs
    overlay = tmp_path / "mine.yaml"
    overlay.write_text(f"data: {{kind: archive, path: null, url: 'https://example.org/{preset}.tar', sha256: null}}\n")
    for files, word in (([file], f"{path} is not a folder"), ([file, str(overlay)], "data: sha256 is missing")):
        done = run("snakemake", "--configfile", *files, "--cores", "1")
        errors = [line for line in done.stderr.splitlines() if "error:" in line]
        assert done.returncode == 2 and len(errors) == 1 and word in errors[0], done.stderr
    assert not (repository / "results").exists()


def test_missing_data_of_the_paper_preset_is_named_before_any_job(repository: Path) -> None:
    done = make_run(repository)("snakemake", "--configfile", "workflow/presets/paper.yaml", "--cores", "1")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1 and "data/laion-aesthetics" in errors[0]
    assert not (repository / "results").exists()


def test_a_missing_archive_is_named_before_any_job(repository: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "archive.yaml"
    overlay.write_text(f"data: {{kind: archive, path: none.tar, sha256: '{'0' * 64}'}}\n")
    done = make_run(repository)("snakemake", "--configfile", str(overlay), "--cores", "1")
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1 and "data.path: none.tar: no such file" in errors[0] and "0" * 64 in errors[0]
    assert not (repository / "results").exists()


def test_missing_teacher_weights_are_named_with_their_origin(repository: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "digits.yaml"
    overlay.write_text("data: {kind: digits, resolution: 16}\nevaluation: {samples: 64, shards: 1}\n")
    done = make_run(repository)(
        "snakemake",
        "--configfile",
        "workflow/presets/paper.yaml",
        str(overlay),
        "--cores",
        "1",
        HF_HUB_CACHE=str(tmp_path / "hub"),
    )
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1
    for word in (
        "stabilityai/stable-diffusion-xl-base-1.0",
        "462165984030d82259a11f4367a4eed129e94a7b",
        "hf download",
        "teacher.diffusers.path",
    ):
        assert word in errors[0]


def test_missing_extractor_weights_are_named_with_their_origin(repository: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "fid.yaml"
    overlay.write_text("metrics: [ode_error, fd_dino]\n")
    done = make_run(repository)(
        "snakemake", "--configfile", str(overlay), "--cores", "1", DIRECTCM_WEIGHTS=str(tmp_path / "weights")
    )
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1 and "dinov2_vitl14_pretrain.pth" in errors[0] and "sha256" in errors[0]


def test_the_slurm_profile_plans_as_typed(repository: Path) -> None:
    done = make_run(repository)("snakemake", "--profile", "slurm", "-n", "--quiet", "host")
    assert done.returncode == 0, done.stderr
    assert planned(done.stdout + done.stderr)["train"] == 10


def test_every_rule_says_how_much_it_needs_and_the_profile_where(repository: Path) -> None:
    text = "\n".join(path.read_text() for path in sorted((repository / "workflow/rules").glob("*.smk")))
    # `on_gpu` makes all three.
    text = text.replace("**on_gpu(", "mem_mb=, runtime=, gpu=, (")
    found = re.findall(r"^(?:    )?rule ?(\w*):\n(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    # Targets have neither output nor command.
    rules = {name: body for name, body in found if "output:" in body}
    assert sorted(name for name, body in found if "output:" not in body) == ["", "why"]
    # Figures and tables are one rule without a name of its own.
    assert {"data", "teacher", "targets", "train", "reference", "sample", "evaluate", "collect", ""} <= set(rules)
    local = {name for name, body in rules.items() if "localrule: True" in body}
    assert {"collect", "gallery", ""} <= local and not {"compare", "train"} & local
    for name, body in rules.items():
        # What runs where the command does asks a cluster for nothing.
        asked = () if name in local else ("mem_mb=", "runtime=")
        for word in (*asked, "log:", "benchmark:", "threads:", "conda:", "message:"):
            assert word in body, f"{name} has no {word}"
    profile = yaml.safe_load((repository / "slurm/config.yaml").read_text())
    assert profile["executor"] == "slurm"
    # `use rule` hands resources on, and not that a rule is local.
    derived = {new: old for old, new in re.findall(r"^ *use rule (\w+) as (\w+) with:", text, re.MULTILINE)}
    assert not local & {*derived, *derived.values()}

    def base(name: str) -> str:
        return base(derived[name]) if name in derived else name

    on_gpu = {name for name in [*rules, *derived] if "gpu=" in rules[base(name)]}
    # Rules that are one job are on one partition; there they ask for a GPU, wherever they may run without the others.
    (group,) = {group for _, group in (line.split("=") for line in profile["groups"])}
    members = {rule for rule, _ in (line.split("=") for line in profile["groups"])}
    assert group == "student" and members == {
        *("sample", "variants", "features", "evaluate", "features_further", "evaluate_further"),
    }
    asked = {name: r.get("gpu", int(name in on_gpu)) for name, r in profile["set-resources"].items()}
    assert asked == dict.fromkeys(on_gpu | members, 1)
    assert {r["slurm_partition"] for r in profile["set-resources"].values()} == {"gpu"}


def test_planning_writes_nothing(repository: Path) -> None:
    done = make_run(repository)("snakemake", "-n")
    assert done.returncode == 0 and planned(done.stdout + done.stderr)["teacher"] == 1
    assert not (repository / "results").exists()


def test_lint_is_clean(repository: Path) -> None:
    done = make_run(repository)("snakemake", "--lint")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "Congratulations" in done.stderr + done.stdout


def test_snakefiles_are_formatted(repository: Path) -> None:
    done = make_run(repository)("snakefmt", "--check", "Snakefile", "workflow")
    assert done.returncode == 0, done.stderr
