"""The command line: fast help, exit codes, one line for a user's mistake, verbs that do what the modules do."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import directcm
from directcm import cli
from directcm.cli import declare, options
from directcm.cli.rules import command
from directcm.cli.verbs import distill
from directcm.config import Config, Ode
from directcm.errors import UserError
from directcm.runtime.artifacts import open_artifact, open_collection
from tests.patience import PATIENCE

HEAVY = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "sklearn",
    "matplotlib",
    "pandas",
    "snakemake",
    "PIL",
)


PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def shell(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "directcm.cli", *arguments], capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Verbs set variables for libraries to be quiet."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from directcm.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as e: assert e.code == 0\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stderr.strip() == "[]" and "directcm" in out.stdout


def test_the_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """As pyproject.toml has it; where the package has no metadata, a line that says so."""
    version = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["version"]
    done = shell("--version")
    assert (done.returncode, done.stdout) == (0, f"directcm {version}\n")

    def none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", none)
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    said = capsys.readouterr()
    assert stop.value.code == 2 and not said.out and said.err.count("\n") == 1 and "make install" in said.err


def test_every_verb_has_help(capsys: pytest.CaptureFixture) -> None:
    verbs = next(a for a in cli.parser()._actions if a.dest == "verb").choices
    assert {
        "data",
        "teacher",
        "encode",
        "noise",
        "targets",
        "states",
        "endpoints",
        "trajectories",
        "train",
        "sample",
        "variants",
        "untrained",
        "search",
        "error_by_time",
        "edit",
        "convergence",
        "fixed_points",
        "cards",
        "extractor",
        "features",
        "evaluate",
        "baselines",
        "table",
        "compare",
        "contrasts",
        "collect",
        "claims",
        "figure",
        "opening",
        "why",
        "outcomes",
        "gallery",
        "costs",
        "provenance",
        "show",
        "reproduced",
        "publish",
        "trace",
        "plan",
        "launch",
        "rehearse",
        "record",
        "restore",
        "adopt",
        "stages",
        "schema",
    } == set(verbs)
    for name in verbs:
        with pytest.raises(SystemExit) as stop:
            cli.main([name, "--help"])
        assert stop.value.code == 0
    assert capsys.readouterr().out.count("usage: directcm ") == len(verbs)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "VERB"),
        (["nonsense"], "nonsense"),
        (["data"], "--settings"),
        (["data", "--out", "x", "--settings", "{}", "--seed", "x"], "--seed"),
        (["data", "--out", "x", "--settings", "{}", "--seed", "-1"], "-1 is below 0"),
        (["show", "a", "b"], "b"),
        (["noise", "--samples", "0"], "0 is below 1"),
        (["train", "--w", "nan"], "nan is below 0"),
        (["sample", "--solver", "rk4"], "rk4"),
        (["evaluate", "--metrics", "fid_"], "fid_"),
        (["evaluate", "--row", "Student"], "Student"),
        (["noise", "--purpose", "roof"], "roof"),
        (["endpoints", "--shard", "-1"], "-1 is below 0"),
        (["endpoints", "--batch-size", "0"], "0 is below 1"),
        (["endpoints", "--out", "x"], "--settings"),
        (["trajectories", "--count", "0"], "0 is below 1"),
        (["train", "--pool", "0"], "0 is below 1"),
        (["train", "--snapshots", "5", "0"], "0 is below 1"),
        (["train", "--snapshots", "5.5"], "5.5"),
        (["sample", "--sets", "4"], "'4' is not STEP:STEPS"),
        (["sample", "--sets", "4:1", "4:0"], "'4:0' is not STEP:STEPS"),
        (["sample", "--sets", "4:1:2"], "'4:1:2' is not STEP:STEPS"),
        (["sample", "--steps", "1"], "--settings"),
        (["variants", "--sets", "250:1"], "'250:1' is no set of samples, such as step~250,sampling_steps~1"),
        (["plan", "all"], "all"),
        (["error_by_time", "--out", "x", "--refined"], "--refined"),
        (["edit", "--batch-size", "0"], "0 is below 1"),
        (["figure", "editing", "--edits", "CM"], "'CM' is not NAME=FOLDER"),
        (["compare", "--features", "clip_tiny"], "'clip_tiny' is not NAME=FOLDER"),
        (["compare", "--setting", "{"], "not valid JSON"),
        (["collect", "--scope", "all"], "all"),
        (["provenance", "--scope", "all"], "all"),
        (["costs", "--out", "x"], "--settings"),
        (["claims", "--out", "x"], "--claims"),
        (["table", "table9"], "table9"),
        (["figure", "pie"], "pie"),
        (["figure", "sweep", "--axis", "seed"], "seed"),
        (["figure", "samples", "--samples", "CM"], "'CM' is not NAME=FOLDER"),
        (["opening", "--out", "x"], "--settings"),
        (["opening", "--samples", "CM"], "'CM' is not NAME=FOLDER"),
        (["gallery", "--out", "x"], "--pictures"),
    ],
)
def test_wrong_calls(arguments: list[str], word: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    out = capsys.readouterr()
    assert stop.value.code == 2 and out.out == ""
    assert len(out.err.splitlines()) == 1 and word in out.err and "--help" in out.err


def test_a_wrong_call_from_the_shell() -> None:
    out = shell("data", "--colour", "red")
    assert out.returncode == 2 and len(out.stderr.splitlines()) == 1 and "Traceback" not in out.stderr


def test_a_users_mistake(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    settings = json.dumps({"kind": "folder", "path": str(tmp_path / "none")})
    log = tmp_path / "logs" / "data.log"
    code = cli.main(["data", "--settings", settings, "--seed", "1", "--out", str(tmp_path / "out"), "--log", str(log)])
    err = capsys.readouterr().err
    assert code == 2 and len(err.splitlines()) == 1
    assert err.startswith("directcm data: error: data.path: ") and str(tmp_path / "none") in err
    assert log.read_text() == err
    assert sys.stderr is not None and "_Tee" not in type(sys.stderr).__name__


@pytest.mark.parametrize(
    ("verb", "flags", "word"),
    [
        ("data", ["--settings", '{"colour": 1}', "--seed", "1"], "--settings: colour: unknown key"),
        ("data", ["--settings", "{", "--seed", "1"], "--settings: not valid JSON"),
        ("data", ["--settings", "none.yaml", "--seed", "1"], "none.yaml"),
        (
            "noise",
            ["--samples", "3", "--data", "nowhere", "--latents", "nowhere", "--seed", "1"],
            "nowhere/manifest.json: no such file",
        ),
        *(
            (
                "evaluate",
                [
                    "--settings",
                    "{}",
                    "--metrics",
                    "ode_error",
                    "--run",
                    run,
                    "--seed",
                    "1",
                    "--data",
                    "a",
                    "--noise",
                    "b",
                    "--samples",
                    "c",
                ],
                "--row is missing",
            )
            for run in ("{}", '{"method": "cn"}', '{"method": ["cm"]}', "[]")
        ),
    ],
)
def test_more_mistakes(verb: str, flags: list[str], word: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main([verb, *flags, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and word in err


@pytest.mark.parametrize(
    ("hparams", "word"),
    [
        ('{"mu": 2}', "--hparams: mu = 2, expected 0 ≤ mu ≤ 1"),
        ('{"nu": 0.5}', "--hparams: unknown setting 'nu'; it has mu"),
        ('{"mu": true}', "a JSON object of numbers"),
        ("{", "a JSON object of numbers"),
    ],
)
def test_a_method_s_hyperparameters(hparams: str, word: str, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        distill._hparams(hparams, "cd")
    assert word in one_line(error)
    assert distill._hparams(None, "cd") == {} and distill._hparams('{"mu": 0}', "cd") == {"mu": 0}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["train", "--own", '{"mu": 0.9}'],
            "directcm train: error: --own is --hparams now (see directcm train --help)\n",
        ),
        (
            ["targets", "--coupling=prior"],
            "directcm targets: error: --coupling is --start-points now (see directcm targets --help)\n",
        ),
    ],
)
def test_a_flag_s_former_name_is_refused_by_its_new_one(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2 and capsys.readouterr().err == line
    with pytest.raises(SystemExit):
        cli.main([arguments[0], "--help"])
    assert arguments[1].partition("=")[0] not in capsys.readouterr().out


def test_a_rule_s_command_is_what_its_verb_declares() -> None:
    line = command(
        "edit", "precision reference? student", wildcards="solver N", w="{params.w}", batch_size="4", before="x "
    )
    assert line == (
        "directcm x edit --settings {params.settings:q} --solver {wildcards.solver} --N {wildcards.N} --w {params.w} --batch-size 4"
        " --precision {params.precision} --teacher {input.teacher} --latents {input.latents} --student {input.student}"
        " {params.reference} --out {output} --seed {params.seed} --threads {threads} --log {log}"
    )
    # Every flag that a verb needs stands in it, and what it has not is refused where the rule is read.
    for name, verb in cli.verbs.VERBS.items():
        words = command(name).split()
        assert all((flag.text in words) or flag.bare for flag in declare.flags(verb) if flag.required)
    for wrong in ({"given": "colour"}, {"given": "colour?"}, {"wildcards": "colour"}, {"colour": "red"}):
        with pytest.raises(ValueError, match="directcm edit has no flag for colour"):
            command("edit", **wrong)


def test_a_teachers_seed_draws_another_seed_and_0_none() -> None:
    found = [options.redrawn(24, teacher_seed) for teacher_seed in range(50)]
    assert found[0] == 24 and len(set(found)) == 50 and {options.redrawn(25, t) for t in range(50)}.isdisjoint(found)
    # Of the key ("24", "teacher_seed", "1"), Philox's first draw below 2^31: a number that no later version may change.
    assert found[1:3] == [958_467_603, 2_024_744_214]


def test_an_artefact_goes_into_its_folder_by_its_manifests_name_too() -> None:
    flags = ["data", "--settings", "{}", "--seed", "1", "--out"]
    for given, out in (("a/b", "a/b"), ("a/b/manifest.json", "a/b"), ("a/b.csv", "a/b.csv")):
        assert cli.parser().parse_args([*flags, given]).out == Path(out)


def test_the_wrong_artefact(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ["--samples", "3", "--data", str(tiny.latents.folder), "--latents", str(tiny.latents.folder), "--seed", "1"]
    assert cli.main(["noise", *flags, "--out", str(tmp_path / "out")]) == 2
    assert "is a 'latents', expected a 'data'" in capsys.readouterr().err


def test_a_bug_is_a_traceback_and_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from directcm import datasets

    def fails(*_: Any) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(datasets, "make", fails)
    log = tmp_path / "log"
    assert cli.main(["data", "--settings", "{}", "--seed", "1", "--out", str(tmp_path / "o"), "--log", str(log)]) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and "RuntimeError: unforeseen" in err and log.read_text() == err


def test_what_the_system_refuses_is_a_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "file").write_text("x")
    assert cli.main(["schema", "--out", str(tmp_path / "file" / "x.json")]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and str(tmp_path / "file") in err and "directcm schema: error" in err


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert cli.main(["schema", "--out", str(tmp_path / "x.json"), "--log", str(tmp_path / "file" / "log")]) == 2


def test_schema_and_show(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from directcm.config.reference import render

    for suffix in (".json", ".md", ".yaml"):
        assert cli.main(["schema", "--out", str(tmp_path / f"x{suffix}")]) == 0
        assert (tmp_path / f"x{suffix}").read_text(encoding="utf-8") == render(suffix)
    assert cli.main(["show", str(tmp_path / "none.csv")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def ode(tiny: Any) -> list[str]:
    return ["--solver", "ddim", "--N", str(tiny.N), "--w", "3"]


@pytest.mark.slow
def test_verbs_do_what_modules_do(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def run(verb: str, *flags: Any, out: str, kind: str) -> str:
        code = cli.main([verb, *map(str, flags), "--out", str(tmp_path / out), "--log", str(tmp_path / "logs" / out)])
        assert code == 0, capsys.readouterr().err
        return open_artifact(tmp_path / out, kind).fingerprint

    seed = ["--seed", tiny.seed]
    parts = {n: getattr(tiny, n).folder for n in ("data", "teacher", "latents", "noise")}
    given = {n: [f"--{n}", p] for n, p in parts.items()}
    scratch = iter(["--scratch", str(tmp_path / f"scratch{i}")] for i in range(9))
    assert (
        run("data", "--settings", tiny.data_settings.model_dump_json(), *seed, out="data", kind="data")
        == tiny.data.fingerprint
    )
    assert (
        run(
            "teacher",
            "--kind",
            "micro_sdxl",
            "--settings",
            tiny.micro.model_dump_json(),
            "--process",
            "{}",
            *given["data"],
            *seed,
            *next(scratch),
            out="teacher",
            kind="teacher",
        )
        == tiny.teacher.fingerprint
    )
    assert (
        run(
            "encode",
            "--settings",
            '{"batch_size": 16}',
            *given["teacher"],
            *given["data"],
            *seed,
            *next(scratch),
            out="latents",
            kind="latents",
        )
        == tiny.latents.fingerprint
    )
    noise = ["--samples", 6, *given["data"], *given["latents"], *seed]
    assert run("noise", *noise, out="noise", kind="noise") == tiny.noise.fingerprint
    floor = run("noise", *noise, "--purpose", "floor", out="floor", kind="noise")
    assert floor != tiny.noise.fingerprint == run("noise", *noise, "--purpose", "evaluation", out="again", kind="noise")
    assert (
        run(
            "targets",
            "--settings",
            tiny.targets_settings.model_dump_json(),
            *ode(tiny),
            "--shard",
            1,
            *given["teacher"],
            *given["latents"],
            *seed,
            *next(scratch),
            out="targets",
            kind="targets",
        )
        == tiny.targets[1].fingerprint
    )
    assert (
        run(
            "train",
            "--settings",
            '{"checkpoint_every": 2}',
            "--method",
            "direct_cm",
            *ode(tiny),
            "--adapter",
            "lora4",
            "--loss",
            "mse",
            "--lr",
            "0.001",
            "--batch-size",
            4,
            "--steps",
            4,
            "--training-seed",
            0,
            "--pool",
            16,
            "--targets",
            *(t.folder for t in tiny.targets),
            *given["teacher"],
            *given["latents"],
            *seed,
            *next(scratch),
            out="student",
            kind="student",
        )
        == tiny.direct_cm.fingerprint
    )
    common = [
        "--settings",
        tiny.evaluation.model_dump_json(),
        *ode(tiny),
        *given["teacher"],
        *given["latents"],
        *given["noise"],
        *seed,
    ]
    assert (
        run("sample", *common, "--shard", 1, "--shards", 2, *next(scratch), out="reference", kind="samples")
        == tiny.reference[1].fingerprint
    )
    run(
        "sample",
        *common,
        "--student",
        tiny.direct_cm.folder,
        "--sets",
        "4:1",
        *next(scratch),
        out="s",
        kind="collection",
    )
    (samples,) = open_collection(tmp_path / "s", "samples").values()
    assert samples.fingerprint == tiny.samples.fingerprint
    assert samples.folder.name == "step~4,sampling_steps~1"


@pytest.mark.slow
def test_the_new_verbs_do_what_modules_do(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Snapshots, sets, endpoints, errors by start time and trajectories, from the command line and from Python."""
    from directcm.evaluation import error_by_time, trajectories

    def run(verb: str, *flags: Any, out: str, kind: str) -> Any:
        assert cli.main([verb, *map(str, flags), "--out", str(tmp_path / out)]) == 0, capsys.readouterr().err
        return open_artifact(tmp_path / out, kind)

    inputs = ["--teacher", tiny.teacher.folder, "--latents", tiny.latents.folder, "--seed", tiny.seed]

    def scratch(name: str) -> list[str]:
        return ["--scratch", str(tmp_path / "scratch" / name)]

    axes = ["--adapter", "lora4", "--loss", "mse", "--lr", "0.001", "--batch-size", 4, "--steps", 4, "--pool", 8]
    more = ["--training-seed", 0, "--snapshots", 1, 3, "--targets", tiny.targets[0].folder]
    student = run(
        "train",
        *("--settings", '{"checkpoint_every": 2}', "--method", "direct_cm", *ode(tiny), *axes, *more, *inputs),
        *scratch("train"),
        out="student",
        kind="student",
    )
    expected = tiny.train(tmp_path / "expected", "direct_cm", snapshots=[1, 3], pool=8, targets=tiny.targets[:1])
    assert student.fingerprint == expected.fingerprint and student.settings == expected.settings

    settings = ["--settings", tiny.evaluation.model_dump_json(), "--noise", tiny.noise.folder]
    what = ["--student", student.folder, "--sets", "4:2", "1:1"]
    run("sample", *settings, *ode(tiny), *what, *inputs, *scratch("sample"), out="samples", kind="collection")
    parts = tiny.sample_sets(tmp_path / "sets", expected, [(4, 2), (1, 1)])
    got = open_collection(tmp_path / "samples", "samples")
    assert {n: a.fingerprint for n, a in got.items()} == {n: a.fingerprint for n, a in parts.items()}

    errors = ["--settings", tiny.errors_settings.model_dump_json(), "--batch-size", 4]
    shards: dict[str, list[Any]] = {"own": [], "fine": []}
    for i in range(2):
        for name, solver, n in (("own", "ddim", 5), ("fine", "edm_heun", 10)):
            axes = ["--solver", solver, "--N", n, "--w", 3, "--shard", i, *scratch(f"{name}{i}")]
            art = run("endpoints", *errors, *axes, *inputs, out=f"{name}{i}", kind="endpoints")
            assert art.fingerprint == tiny.solve_errors(tmp_path / f"{name}{i}-py", solver, n, i).fingerprint
            shards[name].append(art)
    given = ["--endpoints", *(a.folder for a in shards["own"]), "--refined", *(a.folder for a in shards["fine"])]
    art = run("error_by_time", *errors, *given, "--student", student.folder, *inputs, out="errors", kind="errors")
    here = (
        tiny.errors_settings,
        4,
        "no",
        student,
        tiny.teacher,
        tiny.latents,
        shards["own"],
        shards["fine"],
        tiny.seed,
    )
    error_by_time.make(*here, "cpu", tmp_path / "errors-py")
    assert art.fingerprint == open_artifact(tmp_path / "errors-py", "errors").fingerprint

    art = run("trajectories", "--count", 3, *ode(tiny), *inputs, out="trajectories", kind="trajectories")
    trajectories.make(
        3, Ode(solver="ddim", N=5, w=3.0), tiny.teacher, tiny.latents, tiny.seed, "cpu", "no", tmp_path / "t-py"
    )
    assert art.fingerprint == open_artifact(tmp_path / "t-py", "trajectories").fingerprint


NOWHERE = ["--teacher", "nowhere", "--latents", "nowhere", "--seed", "1"]
SETTING = json.dumps(Config().runs()[0].setting.axes())
SOLVE = ["--solver", "ddim", "--N", "5", "--w", "3"]


@pytest.mark.parametrize(
    ("verb", "flags", "word"),
    [
        ("endpoints", ["--settings", '{"colour": 1}', *SOLVE, "--shard", "0", "--batch-size", "4", *NOWHERE], "colour"),
        ("endpoints", ["--settings", "{}", *SOLVE, "--shard", "0", "--batch-size", "4", *NOWHERE], "nowhere/manifest"),
        ("trajectories", [*SOLVE, "--count", "4", *NOWHERE], "nowhere/manifest.json: no such file"),
        (
            "error_by_time",
            [
                "--settings",
                "{}",
                "--batch-size",
                "4",
                "--endpoints",
                "a",
                "--refined",
                "b",
                "--student",
                "nowhere",
                *NOWHERE,
            ],
            "nowhere/manifest.json: no such file",
        ),
        ("collect", ["--settings", "{}", "--results", "nowhere", "--scope", "main"], "nowhere"),
        ("cards", ["--settings", "{}", "--results", "nowhere", "--scope", "main"], "nowhere/data/manifest.json"),
        ("figure", ["error"], "figure error: --errors is missing"),
        ("figure", ["editing"], "figure editing: --edits is missing"),
        ("edit", ["--settings", "{}", *SOLVE, "--batch-size", "4", *NOWHERE], "nowhere/manifest.json: no such file"),
        ("figure", ["supervision"], "figure supervision: --trajectories is missing"),
        ("figure", ["compute", "--metrics", "m.csv"], "figure compute: --students-table is missing"),
        ("table", ["table4", "--settings", "{}", "--metrics", "m.csv"], "table table4: --comparisons is missing"),
        ("claims", ["--claims", "none.yaml", "--settings", "{}", "--comparisons", "c.csv"], "none.yaml"),
        ("table", ["table2", "--settings", "{}", "--metrics", "none.csv", "--comparisons", "none.csv"], "none.csv"),
        ("gallery", ["--pictures", "none.json"], "none.json"),
        (
            "compare",
            ["--settings", "{}", "--setting", "{}", "--metrics", "nowhere", "--seed", "1"],
            "the setting lacks solver, N, w",
        ),
        (
            "compare",
            ["--settings", "{}", "--setting", SETTING, "--metrics", "nowhere", "--seed", "1"],
            "nowhere/manifest.json: no such file",
        ),
    ],
)
def test_mistakes_with_the_new_verbs(
    verb: str,
    flags: list[str],
    word: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    scratch = ["--scratch", "scratch"] if verb == "endpoints" else []
    assert cli.main([verb, *flags, *scratch, "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and word in err and err.startswith(f"directcm {verb}: error: ")
    assert not (tmp_path / "out").exists()


def test_mistakes_with_a_students_sets(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = ["--settings", tiny.evaluation.model_dump_json(), *ode(tiny), "--scratch", str(tmp_path / "scratch")]
    for name in ("teacher", "latents", "noise"):
        flags += [f"--{name}", str(getattr(tiny, name).folder)]
    flags += ["--seed", "24", "--student", str(tiny.cm.folder), "--out", str(tmp_path / "out")]
    for more, word in (
        ([], "--sets is missing"),
        (["--sets"], "--sets is missing"),
        (["--sets", "3:1"], "no snapshot of step 3"),
    ):
        assert cli.main(["sample", *flags, *more]) == 2
        err = capsys.readouterr().err
        assert word in err and len([line for line in err.splitlines() if "error:" in line]) == 1
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_teacher_is_pinned(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    flags = [
        "--settings",
        json.dumps({"path": str(tmp_path / "none")}),
        "--process",
        "{}",
        "--data",
        str(tiny.data.folder),
        "--seed",
        "1",
    ]
    code = cli.main(
        ["teacher", "--kind", "diffusers", *flags, "--scratch", str(tmp_path / "s"), "--out", str(tmp_path / "t")]
    )
    assert code == 2 and "teacher.diffusers.path" in capsys.readouterr().err


def test_an_n_that_does_not_divide_is_a_users_mistake(tiny: Any, tmp_path: Path) -> None:
    flags = [
        "--settings",
        tiny.targets_settings.model_dump_json(),
        "--solver",
        "ddim",
        "--N",
        "7",
        "--w",
        "3",
        "--shard",
        "0",
        "--seed",
        "24",
    ]
    inputs = [
        "--teacher",
        str(tiny.teacher.folder),
        "--latents",
        str(tiny.latents.folder),
        "--scratch",
        str(tmp_path / "s"),
    ]
    assert cli.main(["targets", *flags, *inputs, "--out", str(tmp_path / "t")]) == 2


def test_a_run_that_is_no_json_is_a_users_mistake(tiny: Any, tmp_path: Path) -> None:
    flags = ["--settings", "{}", "--metrics", "ode_error", "--row", "CM", "--steps", "1", "--run", "{", "--seed", "1"]
    inputs = ["--data", str(tiny.data.folder), "--noise", str(tiny.noise.folder), "--samples", str(tiny.samples.folder)]
    with pytest.raises(SystemExit) as error:
        cli.main(["evaluate", *flags, *inputs, "--out", str(tmp_path / "m")])
    assert error.value.code == 2


@pytest.mark.slow
def test_two_threads_give_the_same_bytes_every_time(tiny: Any, tmp_path: Path) -> None:
    """The gradient of an indexing adds up in the order of the threads, unless torch is told to be deterministic."""
    settings = (
        '{"vae": {"channels": [16, 16], "steps": 1}, "unet": {"channels": [32, 64], "steps": 6, "batch_size": 128}}'
    )
    flags = ["--kind", "micro_sdxl", "--settings", settings, "--process", "{}", "--data", str(tiny.data.folder)]
    flags += ["--seed", "1", "--threads", "2"]
    # A process of its own, for the threads stay; one for both, for its start takes longer than the training.
    verbs = [
        ["teacher", *flags, "--scratch", str(tmp_path / f"s{name}"), "--out", str(tmp_path / name)] for name in "ab"
    ]
    done = subprocess.run(
        [sys.executable, "-c", f"from directcm import cli\nfor verb in {verbs!r}: assert cli.main(verb) == 0"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / name / "checksums.csv").read_bytes() for name in "ab")
    assert first == second


def test_text_that_a_terminal_cannot_show_ends_no_verb(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "directcm.cli", "show", str(tmp_path / "café→.csv")],
        env={**os.environ, "PYTHONIOENCODING": "ascii:strict", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


GREET = '''
"""A verb of its own."""

from pathlib import Path
from typing import Annotated

from directcm.cli import options as o


def greet(*, name: Annotated[str, "who is greeted"], times: o.Natural = 1, teacher: o.Teacher, job: o.Job) -> None:
    """Greet someone."""
    Path(job.out).write_text(f"{name} " * times + teacher.kind)
'''


def test_a_verb_is_one_file(tiny: Any, tmp_path: Path) -> None:
    """Nothing else is touched: help, its own help, a rule's command and the call find it; it comes after the verbs of the package."""
    package = shutil.copytree(Path(directcm.__file__).parent, tmp_path / "src/directcm")
    (package / "cli/verbs/greeting.py").write_text(GREET.lstrip())

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=os.environ | {"PYTHONPATH": str(package.parent)},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert re.search(r"^    greet +greet someone$", python("-m", "directcm.cli", "--help"), re.MULTILINE)
    text = python("-m", "directcm.cli", "greet", "--help")
    assert "Greet someone" not in text and "greet someone" in text
    for words in ("--name NAME", "who is greeted", "--times TIMES", "the teacher artefact", "--out OUT", "--log LOG"):
        assert words in text
    assert python("-c", "from directcm.cli.rules import command; print(command('greet', 'times'))") == (
        "directcm greet --name {params.name} --times {params.times} --teacher {input.teacher} --out {output} --log {log}\n"
    )
    out = tmp_path / "greeting.txt"
    flags = ["--name", "you", "--times", "2", "--teacher", str(tiny.teacher.folder), "--out", str(out)]
    python("-m", "directcm.cli", "greet", *flags)
    assert out.read_text() == "you you teacher"
