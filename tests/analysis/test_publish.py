"""The published tables: the documents have what the command writes, from docs/data alone, and no more words than they may."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from directcm import cli
from directcm.analysis.data.selection import main_setting
from directcm.analysis.data.tidy import COMPARISON_COLUMNS, ERROR_COLUMNS, STUDENT_COLUMNS
from directcm.analysis.pages import publish as module
from directcm.analysis.pages.printed import markdown, shown
from directcm.analysis.pages.publish import MARK, configuration, filled, matching, publish, relevant
from directcm.analysis.tables.claim import read_claims
from directcm.config import Config, load_config, parse
from directcm.config.specs import METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv, write_csv, write_json

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs/data"
FOLDERS = sorted(path.parent for scope in module.SCOPES for path in DATA.glob(f"*/{scope}/metrics.csv"))


def prose(text: str) -> list[str]:
    """The words of a document without tables, code, comments and pictures."""
    text = re.sub(r"<!--(\w+:[\w/]+)-->\n.*?<!--/\1-->", "", text, flags=re.DOTALL)
    text = re.sub(r"```.*?```|<!--.*?-->|!\[.*?\]\(.*?\)", "", text, flags=re.DOTALL)
    return " ".join(line for line in text.splitlines() if not line.startswith(("|", "    "))).split()


def lines_of_block(text: str, name: str) -> list[list[str]]:
    """The cells of each line of a block's tables, the lines of dashes left out."""
    inner = next(match[3] for match in MARK.finditer(text) if f"{match[1]}:{match[2]}" == name)
    rows = [line.strip("|").split("|") for line in inner.splitlines() if line.startswith("|")]
    return [row for row in rows if set(row) != {"---"}]


# ----------------------------------------------------------------- the documents of this repository


@pytest.mark.parametrize("name", module.DOCUMENTS)
def test_documents_have_what_the_command_writes(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert filled(text, name, ROOT) == text, f"{name} is stale: run `make publish`"


def test_no_table_of_results_is_written_by_hand() -> None:
    text = MARK.sub("", (ROOT / "docs/results.md").read_text(encoding="utf-8"))
    assert not [line for line in text.splitlines() if line.lstrip().startswith("|")]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name, *_ in MARK.findall(readme)].count("table1") == 1
    # The one other table says what to vary, and has no measured number.
    assert re.findall(r"^\|.*\|$", MARK.sub("", readme), re.MULTILINE)[0] == "| to vary | in `mine.yaml` |"


def test_documents_are_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 700
    assert len(prose((ROOT / "docs/results.md").read_text(encoding="utf-8"))) <= 2500


def test_prose_is_what_is_counted() -> None:
    text = "One <!--n:x--> two.\n\n![no words](a.png)\n\n|a|b|\n\n    code here\n\n```\nmore code\n```\n<!--t:a/b-->\n|c|\n\nno\n<!--/t:a/b-->three"
    assert prose(text) == ["One", "two.", "three"]


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md"))]
)
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text(encoding="utf-8")):
        if not target.startswith(("http:", "https:", "#")):
            path, _, anchor = target.partition("#")
            found = (ROOT / name).parent / path
            assert found.exists(), f"{name}: {target}"
            if anchor:
                text = found.read_text(encoding="utf-8")
                heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
                named = [re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads]
                assert anchor in [*named, *re.findall(r'<a id="([^"]+)">', text)], target


def test_the_main_comparison_is_published() -> None:
    assert DATA / "embedded/main" in FOLDERS


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(DATA)))
def test_published_tables_are_of_the_configurations_metrics(folder: Path) -> None:
    matching(folder, configuration(folder.parent.name, ROOT), headline=folder.name == "paper")


# ----------------------------------------------------------------- a run of made-up numbers


@pytest.fixture
def root(tmp_path: Path, make: Any) -> Path:
    """A repository's files, and a finished run of its whole default grid in results/embedded."""
    root = tmp_path / "repository"
    for name in ("config.yaml", "workflow/claims.yaml", "docs/data/times.csv"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    config = load_config(root / "config.yaml")
    tables = {scope: make.tidy(config, name=scope, further=scope == "paper") for scope in ("main", "paper")}
    costs = [dict.fromkeys(STUDENT_COLUMNS, 1)]
    errors = [
        {**run.spelled, "time": time, "space": space, "student_error": run.seed + time / 1000, "solver_error": 0.25,
         "total_error": 0.5 + (run.method == "cm"), "cross_term": 0, "n": 8}
        for run in config.main() for time in range(100, 1001, 100) for space in ("latent", "pixel")
    ]  # fmt: skip
    for scope in ("main", "paper"):
        folder = root / "results/embedded/collected" / scope
        folder.mkdir(parents=True)
        metrics, comparisons = tables[scope]
        shutil.copy(metrics, folder / "metrics.csv")
        shutil.copy(comparisons, folder / "comparisons.csv")
        write_csv(folder / "students.csv", costs, STUDENT_COLUMNS)
        write_csv(folder / "errors.csv", [{c: row[c] for c in ERROR_COLUMNS} for row in errors], ERROR_COLUMNS)
    made = {
        "commit": "abcdef0123",
        "dirty": False,
        "date": "2026-11-26T00:00:00Z",
        "platform": "Linux",
        "cpus": 2,
        "python": "3.11",
        "versions": {},
    }
    write_json(root / "results/embedded/metrics/teacher/provenance.json", made)
    write_json(
        root / "results/embedded/metrics/floor/provenance.json",
        made | {"commit": "older", "date": "2026-11-25T00:00:00Z"},
    )
    for name in ("samples", "curves"):
        (root / "results/embedded/figures").mkdir(exist_ok=True)
        (root / f"results/embedded/figures/{name}.png").write_bytes(name.encode())
    (root / "docs/images").mkdir()
    (root / "docs/images/samples.png").write_bytes(b"old")
    blocks = [f"{name}:embedded/main" for name in ("table1", "comparison")]
    blocks += [f"{name}:embedded/paper" for name in ("verdicts", "map", "sweeps", "errors", "further")]
    (root / "README.md").write_text("Before <!--minutes:test-->?<!--/minutes:test--> after.\n")
    (root / "docs/results.md").write_text("\n\n".join(f"<!--{block}-->\nold\n<!--/{block}-->" for block in blocks))
    (root / "docs/why.md").write_text("")
    return root


def test_a_runs_tables_are_copied_and_written(root: Path) -> None:
    changed = publish(root, root / "results/embedded")
    assert [Path(name).relative_to(root).as_posix() for name in changed] == [
        "docs/data/embedded/main", "docs/data/embedded/paper", "README.md", "docs/results.md",
    ]  # fmt: skip
    collected, copied = root / "results/embedded/collected", root / "docs/data/embedded"
    for name in ("metrics", "comparisons", "students", "errors"):
        assert (copied / f"main/{name}.csv").read_bytes() == (collected / f"main/{name}.csv").read_bytes()
    # Of the grid the metrics of Table 1 and the further ones alone, and all that is in the table of each.
    further = {"fd_lite0", "is_lite0", "kid_pixels16", "fd_other_tiny"}
    for name in ("metrics", "comparisons"):
        rows = read_csv(collected / f"paper/{name}.csv")
        kept = [row for row in rows if METRICS[row["metric"]].headline or 40 < METRICS[row["metric"]].rank < 50]
        assert further < {row["metric"] for row in kept}
        assert 0 < len(kept) < len(rows) and read_csv(copied / f"paper/{name}.csv") == kept
    assert (copied / "paper/errors.csv").read_bytes() == (collected / "paper/errors.csv").read_bytes()
    about = json.loads((root / "docs/data/embedded/main/run.json").read_text())
    assert (about["commit"], about["other_commits"], about["uncommitted_changes"]) == ("abcdef0123", ["older"], False)
    assert about["configuration"] == json.loads(json.dumps(relevant(load_config(root / "config.yaml"))))
    # A figure that the documents show is renewed, another is not added.
    assert [(p.name, p.read_bytes()) for p in (root / "docs/images").iterdir()] == [("samples.png", b"samples")]
    # Nothing is left to do, and nothing but docs/data is read.
    shutil.rmtree(root / "results")
    assert publish(root) == []


def test_the_table_over_teachers_is_copied_and_judged(root: Path) -> None:
    """CM − Direct CM of three teachers in the main setting: 0.1, 0.2 and 0.3 in ODE error."""
    results, kept = root / "results/embedded", root / "docs/data/embedded/paper/teachers.csv"
    claim = next(c for c in read_claims(root / "workflow/claims.yaml") if c.id == "ode-error-teachers")

    def row() -> list[list[str]]:
        text = (root / "docs/results.md").read_text()
        return [line for line in lines_of_block(text, "verdicts:embedded/paper") if line[0] == claim.says]

    publish(root, results)
    assert not kept.exists() and row() == []
    main = main_setting(load_config(root / "config.yaml"))
    lines = [
        {**main.spelled, "teacher_seed": t, "what": "method", "a": "CM", "b": "Direct CM", "a_step": main.steps, "b_step": main.steps,
         "sampling_steps": 1, "metric": "ode_error", "reference": "teacher", "mean_a": 1 + 0.1 * (t + 1), "mean_b": 1,
         "difference": 0.1 * (t + 1), "se_prompts": 0.01, "n": 1024, "n_seeds": 1}
        for t in range(3)
    ]  # fmt: skip
    columns = ["teacher_seed", *COMPARISON_COLUMNS]
    table = results / "collected/teachers/comparisons.csv"
    table.parent.mkdir()
    write_csv(table, [{c: line.get(c) for c in columns} for line in lines], columns)
    publish(root, results)
    assert kept.read_bytes() == table.read_bytes()
    assert not (root / "docs/data/embedded/main/teachers.csv").exists()
    # As the claim has it: Direct CM − CM.
    ((*_, effect, _),) = row()
    assert "Direct CM − CM: −0.200" in effect
    # A run without it is not judged by another run's.
    table.unlink()
    publish(root, results)
    assert not kept.exists() and row() == []


def test_the_numbers_of_each_table(root: Path) -> None:
    publish(root, root / "results/embedded")
    text = (root / "docs/results.md").read_text()
    table1 = {row[0]: row[1:] for row in lines_of_block(text, "table1:embedded/main")}
    # CM's seeds have 12 · 1.2 · (1, 1.03 … 1.12), and Direct CM's a sixth less; the teacher's is a tenth of 12 · 1.5.
    assert table1["FD-tiny to teacher samples ↓"] == [
        "–",
        "1.200",
        "15.264 ± 0.683",
        "12.720 ± 0.569",
        "FID 95.3 / 166",
    ]
    assert table1["FD-tiny to data ↓"][:1] == ["1.800"] and table1["ODE error to teacher samples ↓"][:2] == ["–", "–"]
    assert table1["metric"][3] == "Direct CM (1 step)" and table1["metric"][4].endswith("**another scale**")
    comparison = {row[0]: row[1:] for row in lines_of_block(text, "comparison:embedded/main")}
    # In these made-up tables the last seed's line stands for a setting: a factor of 1.12 with five seeds, 1.06 with three.
    assert comparison["FD-tiny to teacher samples ↓"] == ["+2.688", "[+1.344, +4.032]", "0.01", "0.01", "3 of 3"]
    found = lines_of_block(text, "map:embedded/paper")
    assert found[0] == ["FD-tiny to the teacher, CM / Direct CM", "62 steps", "125 steps", "250 steps", "500 steps"]
    assert found[1] == ["LoRA, rank 4", *["16.128 / 13.440"] * 4] and len(found) == 6
    assert [row[0] for row in found[2:4]] == ["LoRA, rank 64", "all weights"] and found[3][1] == "15.264 / 12.720"
    assert found[5] == ["LoRA, rank 4, 250 steps", *["16.128 / 13.440"] * 4]
    assert [cell[4:] for cell in found[4][1:]] == ["1", "3", "5", "8"]
    sweeps = lines_of_block(text, "sweeps:embedded/paper")
    assert [row[0] for row in sweeps[1:]] == [
        "N = 10", "N = 20", "N = 50, the main comparison", "N = 100", "Euler", "Heun", "pseudo-Huber", "learning rate 0.001",
        *(f"{k} sampling steps" for k in (2, 4, 8)),
    ]  # fmt: skip
    assert sweeps[1][2:] == ["0.269 / 0.224", "16.128 / 13.440"] and sweeps[5][2:] == [
        "0.254 / 0.212",
        "15.264 / 12.720",
    ]
    assert sweeps[-2][2:] == [f"{a * 1.2 * 1.12 / 4**0.25:.3f} / {a * 1.12 / 4**0.25:.3f}" for a in (0.2, 12)]
    errors = lines_of_block(text, "errors:embedded/paper")
    # The student's mean over seeds 0 to 4, and t / 1000.
    assert errors[1:] == [
        [str(t), f"{2 + t / 1000:.4f}", "1.5000", f"{2 + t / 1000:.4f}", "0.5000", "0.2500"] for t in (100, 500, 1000)
    ]
    verdicts = lines_of_block(text, "verdicts:embedded/paper")
    first = next(row for row in verdicts if row[0].startswith("Direct CM has a lower ODE error than CM"))
    assert first[1] == "paper" and "Direct CM 0.2240, CM 0.2688" in first[3]
    minutes = {row["command"]: row["minutes"] for row in read_csv(root / "docs/data/times.csv")}["test"]
    assert (root / "README.md").read_text() == f"Before <!--minutes:test-->{minutes}<!--/minutes:test--> after.\n"


def test_bold_in_the_map_is_the_inversion(root: Path, make: Any) -> None:
    """Direct CM's ODE error lower and CM's FD lower, both with p < 0.05."""

    def change(metrics: list[dict[str, Any]], comparisons: list[dict[str, Any]]) -> None:
        for row in comparisons:
            if (
                row["metric"] == "fd_tiny"
                and row["N"] == "50"
                and (row["w"], row["a_step"]) in (("1", 250), ("8", 250))
            ):
                row["difference"] = -row["difference"]
                row["p"] = 0.01 if row["w"] == "1" else 0.2

    config = load_config(root / "config.yaml")
    _, comparisons = make.tidy(config, name="other", change=change)
    shutil.copy(comparisons, root / "results/embedded/collected/paper/comparisons.csv")
    publish(root, root / "results/embedded")
    cells = lines_of_block((root / "docs/results.md").read_text(), "map:embedded/paper")[-1][1:]
    assert [cell.startswith("**") for cell in cells] == [True, False, False, False]


def test_the_reading_says_who_is_ahead(root: Path, make: Any) -> None:
    def change(metrics: list[dict[str, Any]], comparisons: list[dict[str, Any]]) -> None:
        for row in comparisons:
            # CM is lower in every distance, surely but for the one to the data; the ODE error stays Direct CM's.
            if row["metric"] == "fd_tiny":
                row["difference"], row["low"], row["high"] = -row["difference"], -row["high"], -row["low"]
            row["se_seeds"] = row["se_prompts"] = abs(row["difference"]) / 100
            row["p"] = row["p_prompts"] = 1e-4
            if row["reference"] == "data":
                row["p"] = row["p_prompts"] = 0.5

    config = load_config(root / "config.yaml")
    _, comparisons = make.tidy(config, name="other", change=change)
    shutil.copy(comparisons, root / "results/embedded/collected/main/comparisons.csv")
    mark = "<!--reading:embedded/main-->{}<!--/reading:embedded/main-->"
    (root / "README.md").write_text(f"Here {mark.format('?')}.\n")
    publish(root, root / "results/embedded")
    said = "Direct CM is ahead in ODE error and CM is ahead in FD-tiny to the teacher, CLIP-tiny, quality-tiny and prompt accuracy; undecided: FD-tiny to data"
    assert (root / "README.md").read_text() == f"Here {mark.format(said)}.\n"


def test_a_table_printed_before_stands_until_a_run_has_it(root: Path) -> None:
    folder = root / "docs/data/embedded/published"
    rows = [
        {
            "setting": "N = 7",
            "metric": "fd_tiny",
            "ode_cm": 1,
            "ode_direct_cm": 2,
            "cm": 3,
            "direct_cm": "",
            "n_seeds": 5,
        }
    ]
    write_csv(folder / "sweeps.csv", rows, list(rows[0]))
    write_json(folder / "run.json", {"commit": "1234567890", "printed": "9829fa5"})
    marks = [f"<!--{name}:embedded/paper--><!--/{name}:embedded/paper-->" for name in ("source", "sweeps")]
    (root / "docs/results.md").write_text("\n".join(marks))
    publish(root)
    text = (root / "docs/results.md").read_text()
    assert "commit `1234567`, as printed at 9829fa5" in text and "|N = 7|5|1.000 / 2.000|3.000 / –|" in text
    publish(root, root / "results/embedded")
    text = (root / "docs/results.md").read_text()
    assert "commit `abcdef0`<!--" in text and "N = 7" not in text and "|N = 10|" in text


def test_table4_of_every_method(tmp_path: Path) -> None:
    """Both of its parts, from the lines of its CSV; a method that is missing in one is missing there alone."""
    columns = ["part", "row", "steps", "metric", "reference", "mean", "sd", "n_seeds", "n_samples", "evaluations"]
    rows = [
        dict(zip(columns, line, strict=True))
        for line in (
            ("Equal", "CM", "1", "fd_tiny", "data", "1.234", "0.5", "3", "8", "65536"),
            ("Equal", "CM", "2", "fd_tiny", "data", "0.9", "", "3", "8", "65536"),
            ("Equal", "CT", "1", "fd_tiny", "data", "", "", "1", "8", "100"),
            ("Other", "CM", "1", "ode_error", "teacher", "0.25", "", "1", "8", "7"),
        )
    ]
    text = module.BLOCKS["table4"].text(rows)
    head = "|method|network evaluations|seeds|ODE error to teacher samples, 1 step|FD-tiny to data, 1 step|FD-tiny to data, 2 steps|prompt accuracy, 1 step|"
    first, second = text.split("Other:")
    assert first.startswith("Equal:") and text.count(head) == 2
    assert "|CM|65,536|3|–|1.23 ± 0.50|0.90|–|\n|CT|100|1|–|–|–|–|\n" in first
    assert "|CM|7|1|0.2500|–|–|–|\n" in second and "CT" not in second


# ----------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!--table9:embedded/main--><!--/table9:embedded/main-->", "there is no such table"),
        ("<!--table1:embedded/main-->", "is not followed by <!--/table1:embedded/main-->"),
        ("<!--table1:embedded/main--><!--/map:embedded/main-->", "is not followed by"),
        ("<!--/table1:embedded/main-->", "is not followed by"),
        (
            "<!--table1:embedded/main--><!--/table1:embedded/main-->",
            "docs/data/embedded/published/table1.csv: no such file",
        ),
        ("<!--minutes:coffee--><!--/minutes:coffee-->", "has no line of coffee"),
        (
            "<!--reading:nothing/main--><!--/reading:nothing/main-->",
            "workflow/presets/nothing.yaml: no such configuration",
        ),
    ],
)
def test_a_block_that_cannot_be_written(root: Path, text: str, said: str, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        filled(text, "README.md", root)
    assert said in one_line(error) and str(error.value).startswith("README.md: ")


def test_only_a_finished_run_of_the_configuration_is_taken(root: Path, make: Any, one_line: Any) -> None:
    collected = root / "results/embedded/collected"
    other = parse(Config, {"metrics": ["fd_tiny", "fd_inf_tiny"]})
    metrics, _ = make.tidy(other, name="fewer")
    shutil.copy(metrics, collected / "paper/metrics.csv")
    with pytest.raises(UserError) as error:
        publish(root, root / "results/embedded")
    assert "lacks clip_tiny, cmmd_tiny" in one_line(error) and not (root / "docs/data/embedded/paper").exists()
    metrics, _ = make.tidy(parse(Config, {"metrics": [*load_config().metrics, "fid"]}), name="more")
    shutil.copy(metrics, collected / "main/metrics.csv")
    with pytest.raises(UserError) as error:
        publish(root, root / "results/embedded")
    assert "has fid besides" in one_line(error) and not (root / "docs/data/embedded/main").exists()
    shutil.rmtree(collected)
    with pytest.raises(UserError) as error:
        publish(root, root / "results/embedded")
    assert "finish the run first" in one_line(error)


def test_a_run_without_errors_by_start_time_or_provenance(root: Path, one_line: Any) -> None:
    for scope in ("main", "paper"):
        write_csv(
            root / f"results/embedded/collected/{scope}/errors.csv", [dict.fromkeys(ERROR_COLUMNS, 1)], ERROR_COLUMNS
        )
    with pytest.raises(UserError) as error:
        publish(root, root / "results/embedded")
    assert "errors:embedded/paper" in one_line(error) and "add errors: true" in str(error.value)
    shutil.rmtree(root / "results/embedded/metrics")
    with pytest.raises(UserError) as error:
        publish(root, root / "results/embedded")
    assert "name the folder of a finished run" in one_line(error)


def test_the_verb(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(root)
    assert cli.main(["publish", "--from", "results/embedded"]) == 0
    assert "written: docs/data/embedded/main\n" in capsys.readouterr().out
    assert cli.main(["publish"]) == 0 and capsys.readouterr().out == ""
    assert cli.main(["publish", "--from", "results/none"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_markdown_and_cells() -> None:
    assert markdown(["a", "b"], [["1", "x|y"]]) == "|a|b|\n|---|---|\n|1|x\\|y|\n"
    assert [shown(*x, 3) for x in (("1.0004", "0.1"), ("-0.0268", ""), ("", ""), (None, None), (2.0, None))] == [
        "1.000 ± 0.100", "−0.027", "–", "–", "2.000",
    ]  # fmt: skip


def test_what_table1_depends_on() -> None:
    """Sizes of jobs change no number, and what other tables need is not in Table 1; everything else is."""
    base = relevant(load_config())
    same = [{"targets": {"shard": 1000}}, {"evaluation": {"shards": 2}}, {"errors": {"points": 50}}, {"train": {"checkpoint_every": 7}},
            {"figures": {"samples": 3}}, {"statistics": {"bootstrap": 500}}, {"preset": "other"}]  # fmt: skip
    for content in same:
        assert relevant(parse(Config, content)) == base, content
    other = [{"seed": 25}, {"ode": {"N": 20}}, {"ode": {"w": 5.0}}, {"train": {"steps": 100}}, {"train": {"weight_decay": 0.1}},
             {"evaluation": {"samples": 512, "shards": 2}}, {"teacher": {"micro_sdxl": {"unet": {"steps": 9}}}}, {"methods": {"cd": {"mu": 0.5}}},
             {"students": [{"seed": [0, 1]}]}]  # fmt: skip
    for content in other:
        assert relevant(parse(Config, content)) != base, content


def test_every_published_file_is_read() -> None:
    """No CSV lies in docs/data that no document asks for."""
    texts = "".join((ROOT / name).read_text(encoding="utf-8") for name in module.DOCUMENTS)
    asked = {(match[1], *match[2].split("/")[:2]) for match in MARK.finditer(texts) if "/" in match[2]}
    for path in DATA.glob("*/published/*.csv"):
        assert (path.stem, path.parts[-3]) in {(name, preset) for name, preset, _ in asked}, path
    for folder in [*FOLDERS, *DATA.glob("*/why")]:
        assert folder.parts[-2:] in {(preset, scope) for _, preset, scope in asked}, folder
    with open(DATA / "times.csv", newline="", encoding="utf-8") as file:
        assert {row["command"] for row in csv.DictReader(file)} == set(re.findall(r"<!--minutes:(\w+)-->", texts))
