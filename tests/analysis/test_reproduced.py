"""Did I reproduce it? A run's Table 1 against the published one: same, within the seeds' sd, different, not comparable."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from directcm import cli
from directcm.analysis.pages.publish import relevant
from directcm.analysis.pages.reproduced import judge, reproduced
from directcm.analysis.tables.cells import COLUMNS
from directcm.config import Config, load_config, parse
from directcm.errors import UserError
from directcm.runtime.artifacts import write_csv, write_json
from tests.analysis.tidy_tables import table

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow

CELLS = 28  # 4 rows × 8 values, less the teacher's three and the floor's one to the teacher itself


@pytest.fixture
def root(tmp_path: Path, make: Any) -> Path:
    """Published tidy tables of the default's main comparison, and a run with the very same Table 1."""
    config = load_config()
    metrics, comparisons = make.tidy(config)
    folder = tmp_path / "docs/data/embedded/main"
    folder.mkdir(parents=True)
    shutil.copy(metrics, folder / "metrics.csv")
    shutil.copy(comparisons, folder / "comparisons.csv")
    write_json(folder / "run.json", {"commit": "abcdef0123", "configuration": relevant(config)})
    table("table1", metrics, comparisons, config, tmp_path / "results/embedded/tables/table1.csv")
    return tmp_path


def ask(root: Path, config: Config | None = None) -> list[str]:
    config = config or load_config()
    return reproduced(config, root / "results" / config.preset, root / "docs/data").splitlines()


def edit(root: Path, **values: Any) -> None:
    """Change cells of the run's Table 1; a name is row__metric__reference, a value its new mean."""
    path = root / "results/embedded/tables/table1.csv"
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name, mean in values.items():
        row, metric, reference = name.split("__")
        (cell,) = [
            r for r in rows if (r["row"], r["metric"], r["reference"]) == (row.replace("_", " "), metric, reference)
        ]
        cell["mean"] = (
            "" if mean is None else str(mean if not callable(mean) else mean(float(cell["mean"]), cell["sd"]))
        )
    write_csv(path, rows, COLUMNS)


def test_the_same_table(root: Path) -> None:
    folder = root / "docs/data/embedded/main"
    assert ask(root) == [
        f"Table 1 against the published one ({folder}, commit abcdef0): {CELLS} cells the same, 0 within the seeds' sd, 0 different"
    ]


def test_what_is_not_printed_makes_no_difference(root: Path) -> None:
    edit(root, CM__fd_tiny__teacher=lambda mean, sd: mean + 1e-5, Teacher__fd_tiny__data=lambda mean, sd: mean - 1e-5)
    assert f": {CELLS} cells the same, 0 within the seeds' sd, 0 different" in ask(root)[0]


def test_within_the_seeds_sd_and_beyond(root: Path) -> None:
    edit(
        root,
        CM__fd_tiny__teacher=lambda mean, sd: mean + 0.99 * float(sd),
        Direct_CM__fd_tiny__teacher=lambda mean, sd: mean - 1.01 * float(sd),
        CM__clip_tiny__prompt=lambda mean, sd: mean + 3 * float(sd),
    )
    lines = ask(root)
    assert lines[0].endswith(f": {CELLS - 3} cells the same, 1 within the seeds' sd, 2 different")
    assert lines[1:] == [
        "  CM, CLIP-tiny: published 0.394 ± 0.018, here 0.447 ± 0.018 (3.0 sd)",
        "  Direct CM, FD-tiny to teacher samples: published 12.720 ± 0.569, here 12.145 ± 0.569 (−1.0 sd)",
    ]


def test_what_has_no_seeds_is_held_against_the_smallest_sd_of_its_line(root: Path) -> None:
    # Direct CM's sd of FD-tiny to the data is 18 · 0.03 · √2.5, CM's 1.2 times that.
    smallest = 18 * 0.03 * 2.5**0.5
    edit(root, Teacher__fd_tiny__data=lambda mean, _: mean + 0.99 * smallest)
    assert ask(root)[0].endswith("1 within the seeds' sd, 0 different")
    edit(root, Teacher__fd_tiny__data=lambda mean, _: mean + 0.12 * smallest)
    lines = ask(root)
    assert lines[0].endswith("0 within the seeds' sd, 1 different")
    assert lines[1].startswith("  Teacher, FD-tiny to data: published 1.800, here 2.7") and lines[1].endswith(
        "(1.1 sd)"
    )


def test_a_value_that_is_not_defined_is_the_same_as_none_alone(root: Path, make: Any) -> None:
    edit(root, CM__kid_tiny__data=None)
    lines = ask(root)
    assert lines[0].endswith(f"{CELLS - 1} cells the same, 0 within the seeds' sd, 1 different")
    assert lines[1].startswith("  CM, KID-tiny to data: published 0.00") and lines[1].endswith("here –")
    cell = {"row": "CM", "metric": "kid_tiny", "reference": "data", "mean": None, "sd": None}
    for nan in ({"mean": "", "sd": ""}, {"mean": float("nan"), "sd": float("nan")}):
        assert [c.verdict for c in judge([cell], [cell | nan])] == ["same"]
        assert [c.verdict for c in judge([cell], [cell | {"mean": 0.5}])] == ["different"]
        assert [c.verdict for c in judge([cell | {"mean": 0.5}], [cell | nan])] == ["different"]


def test_no_seeds_anywhere_and_other_digits_is_different() -> None:
    """With one seed there is no sd that a difference could be within."""
    a = {"row": "CM", "metric": "fd_tiny", "reference": "data", "mean": 1.0, "sd": None}
    assert [c.verdict for c in judge([a], [a | {"mean": 1.001}])] == ["different"]
    assert [c.verdict for c in judge([a], [a | {"mean": 1.0001}])] == ["same"]


def test_an_sd_that_differs_is_seen(root: Path) -> None:
    a = {"row": "CM", "metric": "fd_tiny", "reference": "data", "mean": 1.0, "sd": 0.1}
    assert [c.verdict for c in judge([a], [a | {"sd": 0.2}])] == ["within"]


def test_few_lines_however_many_differ(root: Path) -> None:
    path = root / "results/embedded/tables/table1.csv"
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    write_csv(path, [{**row, "mean": 1000 + float(row["mean"])} for row in rows], COLUMNS)
    lines = ask(root)
    assert lines[0].endswith(f"0 cells the same, 0 within the seeds' sd, {CELLS} different")
    assert len(lines) == 7 and lines[-1] == f"  and {CELLS - 5} more"


def test_cells_in_one_of_the_two_alone(root: Path) -> None:
    path = root / "results/embedded/tables/table1.csv"
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    write_csv(path, [row for row in rows if row["metric"] != "quality_tiny"], COLUMNS)
    assert ask(root)[0].endswith(
        f"{CELLS - 4} cells the same, 0 within the seeds' sd, 0 different, 4 in one of the two alone"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"ode": {"N": 20}}, "students.N 20 instead of 50"),
        ({"ode": {"w": 5.0}}, "students.w 5.0 instead of 3.0"),
        ({"train": {"steps": 500}}, "students.steps 500 instead of 250"),
        ({"evaluation": {"samples": 512, "shards": 2}}, "evaluation.samples 512 instead of 1024"),
        (
            {"students": [{"method": ["cm", "direct_cm"], "seed": [0, 1]}]},
            "students.CM seeds 0, 1 instead of seeds 0, 1, 2, 3, 4",
        ),
        ({"teacher": {"micro_sdxl": {"vae": {"steps": 9}}}}, "teacher.micro_sdxl.vae.steps 9 instead of 280"),
        ({"methods": {"cd": {"mu": 0.5}}}, "methods.cd.mu 0.5 instead of the default"),
        ({"train": {"ema": 0.9}}, "train.ema 0.9 instead of none"),
        ({"data": {"kind": "photos", "resolution": 32}}, "data.kind photos instead of digits"),
    ],
)
def test_another_configuration_is_not_compared(root: Path, content: dict[str, Any], said: str) -> None:
    if "N" in content.get("ode", {}) or "w" in content.get("ode", {}) or "train" in content:
        content = {**content, "students": [{"method": ["cm", "direct_cm"], "seed": [0, 1, 2, 3, 4]}]}
    (line,) = ask(root, parse(Config, content))
    assert "not compared" in line and "another configuration" in line and said in line, line


def test_many_differences_of_configuration_are_one_line(root: Path) -> None:
    config = parse(
        Config,
        {
            "seed": 7,
            "ode": {"N": 20, "w": 2.0},
            "evaluation": {"samples": 512, "shards": 2},
            "students": [{"seed": [0]}],
        },
    )
    (line,) = ask(root, config)
    assert line.endswith("more") and line.count(" instead of ") == 3


def test_nothing_is_published_for_a_preset(root: Path) -> None:
    (line,) = ask(root, parse(Config, {"preset": "mine"}))
    assert "nothing is published for the preset mine" in line


def test_missing_and_malformed_files(root: Path, one_line: Any) -> None:
    run, published = root / "results/embedded/tables/table1.csv", root / "docs/data/embedded/main"
    content = run.read_text()
    for path, broken in (
        (run, None), (run, ""), (run, "a,b\n1,2\n"), (published / "run.json", None), (published / "run.json", "{}"),
        (published / "metrics.csv", None), (published / "metrics.csv", "row\nCM\n"), (published / "comparisons.csv", None),
    ):  # fmt: skip
        kept = path.read_bytes()
        path.unlink()
        if broken is not None:
            path.write_text(broken)
        with pytest.raises(UserError) as error:
            ask(root)
        assert str(path) in one_line(error), error.value
        path.write_bytes(kept)
    run.write_text(content.splitlines()[0] + "\n" + content.splitlines()[1].replace("fd_tiny", "fid") + "\n")
    with pytest.raises(UserError, match="has no cell of the published table"):
        ask(root)


def test_the_verb(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(root)
    (root / "config.yaml").write_text("preset: embedded\n")
    (root / "mine.yaml").write_text("preset: mine\n")
    assert cli.main(["reproduced"]) == 0
    assert capsys.readouterr().out.startswith(
        "Table 1 against the published one (docs/data/embedded/main, commit abcdef0): 28 cells"
    )
    edit(root, CM__fd_tiny__teacher=99)
    assert cli.main(["reproduced", "--configfile", "config.yaml"]) == 0
    assert "1 different\n  CM, FD-tiny" in capsys.readouterr().out
    assert cli.main(["reproduced", "--configfile", "config.yaml", "mine.yaml"]) == 0
    assert "nothing is published" in capsys.readouterr().out
    (root / "results/embedded/tables/table1.csv").unlink()
    assert cli.main(["reproduced"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_is_published_is_the_default() -> None:
    """Else `make reproduce` of a fresh clone compares nothing: make it, then make publish FROM=results/embedded."""
    root = Path(__file__).parents[2]
    about = json.loads((root / "docs/data/embedded/main/run.json").read_text())
    assert about["configuration"] == json.loads(json.dumps(relevant(load_config(root / "config.yaml"))))
    assert len(about["commit"]) == 40 and not about["uncommitted_changes"]
