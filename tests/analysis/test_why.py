"""The experiments on why: the file that declares them, what a grid has of them, and what comes out of made-up runs."""

from __future__ import annotations

import copy
import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from directcm import cli
from directcm.analysis.data import why as module
from directcm.analysis.data.experiments import REFUTED, SUPPORTED, UNDECIDED, UNTESTABLE, read_experiments
from directcm.analysis.data.places import Grid, missing, needed, present
from directcm.analysis.data.why import ARMS, TESTS, outcome, why
from directcm.analysis.pages import why as pages
from directcm.analysis.pages.publish import publish
from directcm.analysis.tables import outcomes
from directcm.config import Config, load_config
from directcm.config.reading import read_yaml
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv, read_json, write_json
from directcm.statistics.frechet import frechet_distance
from directcm.statistics.hypotheses import judge
from tests.analysis.why_world import ROOT, WHY, N, Results, configuration
from tests.runs import make_run, planned

# Made-up runs of hundreds of artefacts.
pytestmark = pytest.mark.slow

CONTENT = yaml.safe_load(WHY.read_text(encoding="utf-8"))


def written(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of why.yaml, its experiments changed."""
    content = copy.deepcopy(CONTENT)
    change(content["experiments"])
    # JSON is YAML.
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def only_deciding(found: dict[str, Any]) -> None:
    """Without the tests that decide nothing."""
    known = read_experiments(WHY)
    for name, item in found.items():
        item["tests"] = {test: item["tests"][test] for test in known[name].deciding}


# ----------------------------------------------------------------- the file


def test_every_letter_is_declared() -> None:
    found = read_experiments(WHY)
    assert {name[0] for name in found} == set("ABCDEF")
    for name, one in found.items():
        assert one.deciding, name
        # Each outcome's meaning is said beforehand, and nothing was changed after a look without being said.
        assert one.means.supported and one.means.refuted and one.means.undecided and one.fresh
        assert all(re.match(r"\d{4}-\d\d-\d\d: ", text) for text in one.changed), name


def test_families_of_arms() -> None:
    d = read_experiments(WHY)["D"]
    assert {arm.share for name, arm in d.made.items() if name.startswith("k/N")} == {0.04, 0.1, 0.2, 0.5, 1}
    assert d.made["k/N=0.1 at 250"].step == 250 and d.made["N=100 k=20"].N == 100
    assert len(d.matching("k* at *")) == 18 and d.matching("k=1 at 250") == ["k=1 at 250"]
    assert d.arms_of(d.tests["grows"]) == d.matching("k* at *")


A_TEST = ("tests", "fd_cm")
WRONG: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("an unknown key", lambda d: d.update(hue=1), "hue: unknown key"),
    ("no hypothesis", lambda d: d.pop("says"), "says: is missing"),
    ("an unknown method", lambda d: d["arms"].update(x={"method": "gan"}), "arms.x: method: unknown method 'gan'"),
    ("an axis's value", lambda d: d["arms"].update(x={"method": "cm", "weight": "two"}), "arms.x: axes"),
    ("a list without a place in the name", lambda d: d["arms"].update(x={"method": ["cm", "cd"]}), "the arm's name needs {method}"),
    ("a place without a key", lambda d: d["arms"].update({"{hue}": {"method": "cm"}}), "{hue} in the name is no key"),
    ("two arms of a name", lambda d: d["arms"].update({"k=1 at 250 ": {"method": "cm"}, "{method} ": {"method": ["cm", "cm"]}}), "two arms 'cm'"),
    ("k and share", lambda d: d["arms"].update(x={"method": "k_step", "k": 2, "share": 0.1}), "k or share, not both"),
    ("relay without at", lambda d: d["arms"].update(x={"method": "cm", "relay": "cm"}), "relay and at go together"),
    ("labels of nobody", lambda d: d["arms"].update(x={"labeller_of": "k=1 at 250"}), "labeller_of names no arm that has labels"),
    ("half a fixed point", lambda d: d["arms"].update(x={"process": "vp", "k": 1}), "process, dimension, kind, m and k"),
    ("both kinds of arms", lambda d: d["arms"].update(x={"process": "vp", "dimension": 2, "kind": "shared", "m": 8, "k": 1}), "do not go together"),
    ("no such arm", lambda d: d["tests"]["fd_cm"].update(contrast={"nobody": 1}), "tests.fd_cm: no arm is called 'nobody'"),
    ("an unknown metric", lambda d: d["tests"]["fd_cm"].update(metric="fid3"), "tests.fd_cm: unknown metric 'fid3'"),
    ("a metric's reference", lambda d: d["tests"]["fd_cm"].update(reference="prompt"), "has no reference 'prompt'"),
    ("no values by prompt", lambda d: d["tests"]["fd_cm"].update(metric="kid_tiny"), "kid_tiny has no values by prompt"),
    ("two kinds of contrast", lambda d: d["tests"]["fd_cm"].update(slope={"arms": "k* at *", "over": "k"}), "one of contrast, slope and adjusted"),
    ("equality without a margin", lambda d: d["tests"]["fd_cm"].update(claim="equal"), "margin goes with equal"),
    ("a margin without equality", lambda d: d["tests"]["fd_cm"].update(margin=0.1), "margin goes with equal"),
    ("a margin of nothing", lambda d: d["tests"]["clip_cm"].update(margin="5 %"), '"15 % of ARM"'),
    ("a margin of 0", lambda d: d["tests"]["clip_cm"].update(margin=0.0), "above 0"),
    ("a slope over what is not said", lambda d: d["tests"]["grows"]["slope"].update(over="m"), "says no m, over which the slope is"),
    ("a factor of other values", lambda d: d["tests"].update(x={**CONTENT["experiments"]["F"]["tests"]["rank_cm"], "margin": 0.1, "adjusted": {"arms": "cd", "factor": "method", "values": ["cm", "direct_cm"]}}), "none of cm, direct_cm"),
    ("better of what has no better", lambda d: d["tests"]["fd_cm"].update(metric="ode_variance", claim="better"), "neither way is better"),
    ("a rule of no test", lambda d: d.update(supported_if={"all": ["fd"]}), "supported_if: there is no test 'fd'"),
    ("a rule of all and any", lambda d: d.update(supported_if={"all": ["fd_cm"], "any": ["fd_cm"]}), "a rule has all or any"),
    ("a coefficient of 0", lambda d: d["tests"]["fd_cm"].update(contrast={"k=1 at 250": 0}), "a coefficient is a number, and not 0"),
    ("a name of a test", lambda d: d["tests"].update({"Fd": d["tests"]["fd_cm"]}), "no name of a test"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"), [(change, said) for _, change, said in WRONG], ids=[name for name, *_ in WRONG]
)
def test_a_mistake_is_one_line_that_names_file_and_key(change: Any, said: str, tmp_path: Path, one_line: Any) -> None:
    def alone(found: dict[str, Any]) -> None:
        change(found["D"])
        for other in [*found]:
            if other != "D":
                del found[other]

    path = written(tmp_path / "why.yaml", alone)
    with pytest.raises(UserError) as error:
        read_experiments(path)
    assert said in str(error.value) and str(error.value).startswith(f"{path}: D: "), str(error.value)
    one_line(error)


@pytest.mark.parametrize(
    ("content", "said"),
    [({}, "the one key experiments"), ({"experiments": []}, "the one key experiments"), ({"experiments": {"G": {}}}, "'G' is no name"),
     ({"experiments": {"D": 3}}, "found a int"), ({"experiments": {"d": {}}}, "'d' is no name")],
)  # fmt: skip
def test_a_file_that_is_none(content: Any, said: str, tmp_path: Path, one_line: Any) -> None:
    (tmp_path / "why.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as error:
        read_experiments(tmp_path / "why.yaml")
    assert said in str(error.value)
    one_line(error)


def _places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in the file below its experiments."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, one in items for place in [(*above, key), *_places(one, (*above, key))]]


PLACES = _places(CONTENT["experiments"])
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=8), st.lists(st.integers(0, 2), max_size=2),
    st.dictionaries(st.text(max_size=4), st.integers(0, 2), max_size=2),
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), junk=JUNK, drop=st.booleans())
def test_whatever_is_changed_is_read_or_refused_in_one_line(
    place: tuple[Any, ...], junk: Any, drop: bool, tmp_path: Path, one_line: Any
) -> None:
    def change(found: dict[str, Any]) -> None:
        # The one experiment alone: a file is read by PyYAML's slow loader.
        for other in [*found]:
            if other != place[0]:
                del found[other]
        inside: Any = found
        for key in place[:-1]:
            inside = inside[key]
        if drop:
            del inside[place[-1]]
        else:
            inside[place[-1]] = junk

    path = written(tmp_path / "why.yaml", change)
    try:
        read_experiments(path)
    except UserError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error)


# ----------------------------------------------------------------- what a grid has


def test_the_preset_has_the_experiments_and_the_default_has_none() -> None:
    known = read_experiments(WHY)
    assert present(known, load_config(ROOT / "config.yaml")) == {}
    config = load_config(ROOT / "config.yaml", ROOT / "workflow/presets/why.yaml")
    assert set(present(known, config)) == {*LETTERS}
    # By every unit that was planned.
    grid = Grid(config)
    for name, test, units in (
        ("C", "equal", 5),
        ("D", "fd_cm", 5),
        ("D", "fd_cm_fresh", 4),
        ("E", "gain", 3),
        ("F", "rank_cm", 3),
    ):
        assert len(grid.units(known[name], known[name].tests[test])) == units
    for preset in ("photos", "emoji"):
        files = [ROOT / "config.yaml", *(ROOT / f"workflow/presets/{name}.yaml" for name in (preset, f"why_{preset}"))]
        own = load_config(*files)
        assert present(known, own) == {"D": "D-natural"} and own.preset == preset
        assert {
            run.k for arm in known["D-natural"].made for run in [Grid(own).run(known["D-natural"], arm, 0, "seed")]
        } == {1, 2, 20}


def test_scaled_sets_and_relays_are_the_grids_own() -> None:
    """By the names that the samples have."""
    known, config = read_experiments(WHY), load_config(ROOT / "config.yaml", ROOT / "workflow/presets/why.yaml")
    grid = Grid(config)
    for name, arm, part in (
        ("A", "cm variance", "step~250,sampling_steps~1,scaling~variance"), ("E", "cm, then direct_cm", "step~250,sampling_steps~2,relay~direct_cm,at~0.1"),
        ("A", "direct_cm raw from 0.1", "step~250,sampling_steps~1,start~0.1"),
    ):  # fmt: skip
        place = grid.place(known[name], arm, 0, "seed")
        assert grid.has(place) and place.collection == f"variants/{place.run.key}"
        assert part in [one.name for one in config.variants(place.run)]
    plain = grid.place(known["A"], "cm raw", 0, "seed")
    assert plain.collection == plain.run.key and grid.has(plain)


def test_why_lacks_is_said(one_line: Any) -> None:
    absent = missing(read_experiments(WHY), load_config(ROOT / "config.yaml"))
    assert absent["C"].startswith("arm on cm of test equal needs the student") and "labels cm" in absent["C"]
    assert "add it to students" in absent["D"] and "k 5" in absent["D"]
    without = configuration("why", metrics=["ode_error", "fd_tiny"])
    assert (
        "clip_score or clip_tiny, which is not among this run's metrics" in missing(read_experiments(WHY), without)["D"]
    )


def test_a_labelling_student_is_that_of_the_labels() -> None:
    known, config = read_experiments(WHY)["C"], load_config(ROOT / "config.yaml", ROOT / "workflow/presets/why.yaml")
    grid = Grid(config)
    for arm, teaching in (("on cm", "the cm"), ("on full 500", "the full 500")):
        student = grid.run(known, arm, 1, "seed")
        assert grid.run(known, teaching, 1, "seed") == student.labelled_by and student.labelled_by.seed == 2


def test_the_presets_lines_begin_with_the_defaults() -> None:
    """So that a student that both make has the same sets, and either run leaves the other's alone."""
    default, own = (read_yaml(ROOT / name)["students"] for name in ("config.yaml", "workflow/presets/why.yaml"))
    assert own[: len(default)] == default
    for preset in ("photos", "emoji"):
        default, own = (
            read_yaml(ROOT / f"workflow/presets/{name}.yaml")["students"] for name in (preset, f"why_{preset}")
        )
        assert own[: len(default)] == default
    configs = [load_config(ROOT / "config.yaml", *more) for more in ((), (ROOT / "workflow/presets/why.yaml",))]
    for run in configs[0].grid():
        assert configs[0].sets(run) == configs[1].sets(run)


def test_what_an_experiment_reads() -> None:
    known, config = read_experiments(WHY), configuration("why")
    e, f = needed(known["E"], config), needed(known["F"], config)
    # Parts of the ODE error by prompt need latents of students and teacher; distances travelled those of the untrained start.
    assert e["reference"] == [f"reference/solver~ddim,N~50,w~3/shard~{i}" for i in (0, 1)] and e["noise"] == ["noise"]
    assert "untrained" not in e and len(f["untrained"]) == 3 and "reference" not in f
    d = needed(known["D"], config)
    assert set(d) == {"metrics", "features"}
    assert "features/clip_tiny/teacher/teacher_seed~4/solver~ddim,N~50,w~3" in d["features"]
    assert "features/clip_tiny/data" in d["features"]


# ----------------------------------------------------------------- what comes out


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("declared") / "why.yaml", only_deciding)


def run_all(results: Results, letters: str, file: Path, config_file: Path) -> Path:
    """Through the verbs: each experiment, then the outcomes; returns the folder."""
    folder = results.root / "why"
    for letter in letters:
        results.make(letter)
        arguments = [
            "why",
            "--experiments",
            str(file),
            "--letter",
            letter,
            "--settings",
            str(config_file),
            "--results",
            str(results.root),
        ]
        assert cli.main([*arguments, "--out", str(folder / f"{letter.lower()}.csv")]) == 0
    tests = [str(folder / f"{letter.lower()}.csv") for letter in letters]
    arguments = ["outcomes", "--experiments", str(file), "--settings", str(config_file), "--tests", *tests]
    assert (
        cli.main([*arguments, "--opening", str(results.root / "opening.html"), "--out", str(folder / "outcomes.csv")])
        == 0
    )
    return folder


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.json"
    write_json(path, configuration("why").model_dump(mode="json"))
    return path


LETTERS = "ABCDEF"


@pytest.fixture(scope="module")
def true(tmp_path_factory: pytest.TempPathFactory, file: Path, config_file: Path) -> Results:
    made = Results(tmp_path_factory.mktemp("true"), configuration("why"), True, file)
    run_all(made, LETTERS, file, config_file)
    return made


def test_a_run_in_which_each_hypothesis_is_true(true: Results) -> None:
    assert read_json(true.root / "why/outcomes.json") == dict.fromkeys(LETTERS, SUPPORTED)


def test_a_run_in_which_each_is_false(tmp_path: Path, file: Path, config_file: Path) -> None:
    made = Results(tmp_path, configuration("why"), False, file)
    folder = run_all(made, LETTERS, file, config_file)
    assert read_json(folder / "outcomes.json") == dict.fromkeys(LETTERS, REFUTED)
    page = (tmp_path / "opening.html").read_text(encoding="utf-8")
    assert page.count("<strong>refuted</strong>") == len(LETTERS)


def test_the_files_of_a_run(true: Results) -> None:
    folder = true.root / "why"
    lines = read_csv(folder / "outcomes.csv")
    assert list(lines[0]) == outcomes.COLUMNS and [line["experiment"] for line in lines] == list(LETTERS)
    known = read_experiments(WHY)
    for line in lines:
        assert line["says"] == outcomes.plain(known[line["name"]].says) and line["means"] == outcomes.plain(
            known[line["name"]].means.supported
        )
        assert float(line["p"]) <= float(line["p_holm"]) <= 0.05
    d = next(line for line in lines if line["experiment"] == "D")
    assert (d["n_units"], d["n_prompts"], d["unit"]) == ("5", str(N), "teacher")
    page = (folder / "outcomes.html").read_text(encoding="utf-8")
    assert (
        all(outcomes.plain(known[line["name"]].title) in page for line in lines)
        and "Changed after a look: nothing." in page
    )
    tex = (folder / "outcomes.tex").read_text(encoding="utf-8")
    assert "D. Dose" in tex and tex.count("\\begin{tabular") == 1
    opening = (true.root / "opening.html").read_text(encoding="utf-8")
    assert opening.count("<strong>supported</strong>") == len(LETTERS) and 'class="opening"' in opening
    assert "Not in this run" not in opening
    assert cli.main(["show", str(folder / "outcomes.csv")]) == 0


def test_a_tests_numbers_by_hand(true: Results) -> None:
    """FD of five teachers at k/N = 0.1 and k = 1, from the features on disk."""
    (line,) = [one for one in read_csv(true.root / "why/d.csv") if one["test"] == "fd_cm"]
    known, grid = true.experiments["D"], true.grid
    differences = []
    for teacher in range(5):
        sides = []
        for arm in ("k/N=0.1 at 250", "k=1 at 250"):
            place = grid.place(known, arm, teacher, "teacher")
            part = f"students/{place.collection}/step~250,sampling_steps~1"
            image = true.kept[part].arrays("features.safetensors")["image"]
            ode = f"teacher/{place.run.ode.key}"
            sides.append(frechet_distance(image, true.kept[ode].arrays("features.safetensors")["image"]).value)
        differences.append(sides[0] - sides[1])
    assert float(line["estimate"]) == pytest.approx(np.mean(differences), rel=1e-6)
    assert float(line["se_units"]) == pytest.approx(np.std(differences, ddof=1) / 5**0.5, rel=1e-5)
    assert (line["n_units"], line["units"], line["n_prompts"], line["unit"]) == ("5", "0 1 2 3 4", str(N), "teacher")
    assert float(line["low"]) < float(line["estimate"]) < float(line["high"]) < 0
    assert line["verdict"] == module.SHOWN and line["contrast"] == "+1 k/N=0.1 at 250, -1 k=1 at 250"


def test_the_interaction_by_hand(true: Results) -> None:
    """How the slope of FD over log₂ k changes per doubling of the steps: of each teacher by least squares over its 18 cells."""
    lines = [
        one
        for one in read_csv(true.root / "why/d_arms.csv")
        if one["metric"] == "fd_tiny" and one["reference"] == "teacher"
    ]
    (test,) = [one for one in read_csv(true.root / "why/d.csv") if one["test"] == "grows"]
    found = []
    for teacher in range(5):
        own = [
            one for one in lines if one["unit"] == str(teacher) and one["method"] == "k_step" and one["steps"] == "1000"
        ]
        assert len(own) == 18
        k, step, y = (np.array([float(one[name]) for one in own]) for name in ("k", "step", "value"))
        x, z = np.log2(k), np.log2(step)
        # Of a full factorial: centred on the values of the axes.
        x, z = x - np.unique(x).mean(), z - np.unique(z).mean()
        found.append(np.linalg.lstsq(np.column_stack([np.ones(18), x, z, x * z]), y, rcond=None)[0][3])
    assert float(test["estimate"]) == pytest.approx(np.mean(found), rel=1e-6) and float(test["estimate"]) < 0


def test_the_adjusted_difference_by_hand(true: Results) -> None:
    lines = read_csv(true.root / "why/f_arms.csv")
    (test,) = [one for one in read_csv(true.root / "why/f.csv") if one["test"] == "rank_cm"]
    found = []
    for teacher in range(3):
        own = {
            (one["arm"], one["metric"], one["reference"]): float(one["value"])
            for one in lines
            if one["unit"] == str(teacher) and one["method"] == "cm"
        }
        arms = [arm for arm, metric, _ in own if metric == "displacement"]
        far = np.log([own[arm, "displacement", "none"] for arm in arms])
        y = np.array([own[arm, "fd_tiny", "teacher"] for arm in arms])
        group = np.array(["lora64" in arm for arm in arms], float)
        found.append(np.linalg.lstsq(np.column_stack([np.ones(18), far, far**2, group]), y, rcond=None)[0][3])
    assert float(test["estimate"]) == pytest.approx(np.mean(found), abs=1e-6)
    # Where all travel alike the margin is 15 % of one arm.
    cell = [
        float(one["value"])
        for one in lines
        if one["arm"] == "cm lora4 0.0001 at 250" and (one["metric"], one["reference"]) == ("fd_tiny", "teacher")
    ]
    assert float(test["margin"]) == pytest.approx(0.15 * np.mean(cell))


def test_parts_by_prompt(true: Results) -> None:
    """The variance of a part over prompts, against that of its delete-one values."""
    (line,) = [one for one in read_csv(true.root / "why/e.csv") if one["test"] == "gain"]
    assert float(line["se_prompts"]) > 0 and line["n_prompts"] == str(N) and float(line["estimate"]) < 0
    own = [
        one
        for one in read_csv(true.root / "why/e_arms.csv")
        if one["metric"] == "ode_gain" and one["method"] == "direct_cm"
    ]
    means = {
        density: np.mean([float(one["value"]) for one in own if one["density"] == density and one["weight"] == "one"])
        for density in ("uniform", "0.25")
    }
    assert float(line["estimate"]) == pytest.approx(means["0.25"] - means["uniform"])


def test_arms_have_every_number(true: Results) -> None:
    lines = read_csv(true.root / "why/arms.csv")
    assert list(lines[0]) == ARMS
    (one,) = [
        line for line in lines
        if (line["arm"], line["unit"], line["metric"], line["reference"]) == ("on cm", "0", "fd_tiny", "data")
    ]  # fmt: skip
    assert (one["method"], one["labels"], one["step"], one["n"]) == ("direct_cm", "cm", "250", str(N))
    # A contrast can be made of them.
    values = {
        line["unit"]: float(line["value"])
        for line in lines
        if line["arm"] == "on cm" and (line["metric"], line["reference"]) == ("fd_tiny", "teacher")
    }
    other = {
        line["unit"]: float(line["value"])
        for line in lines
        if line["arm"] == "the cm" and (line["metric"], line["reference"]) == ("fd_tiny", "teacher")
    }
    (test,) = [line for line in read_csv(true.root / "why/c.csv") if line["test"] == "worse"]
    assert float(test["estimate"]) == pytest.approx(np.mean([values[u] - other[u] for u in values]), rel=1e-6)


# ----------------------------------------------------------------- the rule


def with_p(experiment: Any, **p: tuple[float, float] | None) -> dict[str, Any]:
    """Tests with these one-sided p, for and against."""
    out = {}
    for name, sides in p.items():
        judged = None
        if sides is not None:
            judged = judge(np.random.default_rng(0).normal(size=(4, 9)), 0.95, 1)
            judged = type(judged)(judged.found, *sides, 4, 9)
        out[name] = module.Tested(name, experiment.tests[name], "fd_tiny", judged, range(4))
    return out


def test_an_outcome_follows_by_its_rule() -> None:
    known = read_experiments(WHY)
    c, e = known["C"], known["E"]
    good, bad, open_ = (0.001, 1.0), (1.0, 0.001), (0.2, 0.8)
    # Supported: both of two; the larger p counts.
    names = ("equal", "equal_500", "full", "worse", "worse_full")
    assert outcome(c, with_p(c, **dict.fromkeys(names[:3], bad), worse=good, worse_full=(0.004, 1.0)), 0.05) == (
        SUPPORTED,
        0.008,
    )
    assert (
        outcome(c, with_p(c, **dict.fromkeys(names[:3], bad), worse=good, worse_full=(0.026, 1.0)), 0.05)[0]
        == UNDECIDED
    )
    assert outcome(c, with_p(c, **dict.fromkeys(names[:3], good), worse=open_, worse_full=open_), 0.05) == (
        REFUTED,
        0.002,
    )
    assert outcome(c, with_p(c, **dict.fromkeys(names, open_)), 0.05)[0] == UNDECIDED
    # Refuted: any of two, one of which needs both of two; the smaller p is taken twice.
    assert outcome(e, with_p(e, gain=good, offset=open_, offset_stays=(0.004, 1.0)), 0.05) == (REFUTED, 0.016)
    assert outcome(e, with_p(e, gain=bad, offset=open_, offset_stays=bad), 0.05) == (REFUTED, 0.004)
    assert outcome(e, with_p(e, gain=good, offset=good, offset_stays=bad), 0.05) == (SUPPORTED, 0.002)
    # A rule with a test that could not be taken says nothing.
    assert outcome(e, with_p(e, gain=good, offset=good, offset_stays=None), 0.05) == (UNTESTABLE, None)


# ----------------------------------------------------------------- what is refused


def test_what_is_not_there_or_not_alike(true: Results, tmp_path: Path, file: Path, one_line: Any) -> None:
    config = configuration("why")
    with pytest.raises(UserError, match="B: it needs fixed_points") as error:
        why(file, "B", configuration("why", fixed_points=None), true.root, tmp_path / "b.csv")
    one_line(error)
    other = tmp_path / "other"
    shutil.copytree(true.root, other)
    place = true.grid.place(true.experiments["C"], "on cm", 0, "seed")
    shutil.rmtree(other / "metrics/students" / place.collection)
    with pytest.raises(UserError) as error:
        why(file, "C", config, other, tmp_path / "c.csv")
    one_line(error)
    other = tmp_path / "features"
    shutil.copytree(true.root, other)
    shutil.rmtree(other / "features/clip_tiny/students" / place.collection)
    with pytest.raises(UserError) as error:
        why(file, "C", config, other, tmp_path / "c.csv")
    one_line(error)
    # A file of another experiment, or of another why.yaml.
    with pytest.raises(UserError, match="its tests are not those of C"):
        outcomes.found_in(WHY, [true.root / "why/c.csv"], config)
    with pytest.raises(UserError, match="no outcome of an experiment"):
        outcomes.found_in(file, [true.root / "why/arms.csv"], config)


# ----------------------------------------------------------------- figures


@pytest.mark.parametrize(
    ("name", "letter"), [("why_dose", "d"), ("why_targets", "c"), ("why_targets", "e"), ("why_budget", "f")]
)
def test_figures_show_the_arms_means(name: str, letter: str, true: Results, tmp_path: Path) -> None:
    out = tmp_path / f"{name}.pdf"
    arms = true.root / f"why/{letter}_arms.csv"
    assert cli.main(["figure", name, "--arms", str(arms), "--out", str(out)]) == 0
    assert out.stat().st_size > 5000 and out.with_suffix(".png").stat().st_size > 10000
    drawn = read_csv(out.with_suffix(".csv"))
    lines = read_csv(arms)
    assert {line["metric"] for line in drawn} >= {"ode_error", "fd_tiny"}
    for line in drawn:
        own = [
            float(one["value"])
            for one in lines
            if (one["arm"], one["metric"], one["reference"]) == (line["arm"], line["metric"], line["reference"])
        ]
        assert float(line["mean"]) == pytest.approx(np.mean(own)) and int(line["n"]) == len(own)


def test_a_figure_of_other_arms_is_refused(true: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, letter in (("why_dose", "c"), ("why_budget", "c"), ("why_anatomy", "c")):
        given_ = ["figure", name, "--arms", str(true.root / f"why/{letter}_arms.csv"), "--out", str(tmp_path / "x.pdf")]
        assert cli.main(given_) == 2
        assert capsys.readouterr().err.count("\n") == 1


# ----------------------------------------------------------------- the page


def test_the_page_has_a_runs_numbers(true: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "repository"
    for name in ("config.yaml", "workflow/claims.yaml", "docs/data/times.csv", "docs/why.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for name in ("README.md", "docs/results.md"):
        (root / name).write_text("")
    blank = (root / "docs/why.md").read_text(encoding="utf-8")
    (root / "docs/images").mkdir()
    results = root / "results/embedded"
    shutil.copytree(true.root / "why", results / "why")
    (results / "figures").mkdir()
    (results / "figures/why_dose.png").write_bytes(b"dose")
    made = {
        "commit": "abcdef0123",
        "dirty": False,
        "date": "2026-11-27",
        "platform": "Linux",
        "cpus": 2,
        "python": "3.11",
        "versions": {},
    }
    write_json(results / "metrics/students/x/provenance.json", made)
    changed = publish(root, results)
    assert any("docs/data/embedded/why" in path for path in changed)
    kept = {path.name for path in (root / "docs/data/embedded/why").iterdir()}
    assert kept == {"outcomes.csv", "arms.csv", "run.json", *(f"{letter.lower()}.csv" for letter in LETTERS)}
    text = (root / "docs/why.md").read_text(encoding="utf-8")
    assert "![why_dose](images/why_dose.png)" in text and (root / "docs/images/why_dose.png").read_bytes() == b"dose"
    (test,) = [one for one in read_csv(true.root / "why/d.csv") if one["test"] == "fd_cm"]
    shown = outcomes.effect(test)
    assert shown in text and f"5 teachers, {N} prompts" in shown
    assert "D is supported: " + outcomes.plain(read_experiments(WHY)["D"].means.supported) in text
    # The best k by length: 5, 10 and 25 of 50 were made up to be nearest.
    rows = [line.strip("|").split("|") for line in text.splitlines() if re.match(r"\|50\|", line)]
    assert [(row[1], row[2]) for row in rows] == [("250", "5"), ("500", "10"), ("1,000", "25")]
    # What was not run says so, and another run leaves nothing of this one.
    assert (
        "The figure why_loss was not run yet." in text
        and "On photographs:\n\n<!--outcome:photos/why/d-->\n**not run yet**" in text
    )
    shutil.rmtree(root / "docs/data/embedded/why")
    (root / "docs/images/why_dose.png").unlink()
    publish(root)
    assert (root / "docs/why.md").read_text(encoding="utf-8") == blank


def test_the_page_is_short() -> None:
    from tests.analysis.test_publish import prose

    text = (ROOT / "docs/why.md").read_text(encoding="utf-8")
    words = " ".join(line for line in text.splitlines() if not line.startswith("|"))
    assert len(prose(text)) <= 1500 and len(re.sub(r"<!--.*?-->", "", words).split()) <= 1500
    assert len(set(re.findall(r"<!--picture:embedded/(\w+)-->", text))) <= 6
    assert set(re.findall(r"<!--picture:embedded/(\w+)-->", text)) == set(pages.FIGURES)


def test_no_number_of_an_experiment_is_written_by_hand() -> None:
    """Outside the blocks the page has no measured number."""
    text = re.sub(
        r"<!--(\w+:[\w/]+)-->.*?<!--/\1-->", "", (ROOT / "docs/why.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    assert not re.findall(r"[−+]0\.\d+|\[[-−+]?\d\.\d", text)


@pytest.mark.pipeline
def test_the_presets_are_planned(repository: Path) -> None:
    run = make_run(repository)
    overlays = {
        "why_c": ["workflow/presets/why.yaml"], "why_d": ["workflow/presets/why.yaml"],
        "why": ["workflow/presets/photos.yaml", "workflow/presets/why_photos.yaml"],
    }  # fmt: skip
    for target, files in overlays.items():
        done = run("snakemake", target, "--dry-run", "--configfile", *files)
        assert done.returncode == 0, done.stderr
        jobs = planned(done.stdout)
        assert jobs["why_experiment"] == jobs["outcomes"] == 1, target
        # What target C alone needs: no k, and of the default grid's students none but those of its arms.
        assert ("states" in jobs, jobs["train"]) == {"why_c": (False, 50), "why_d": (True, 65), "why": (True, 9)}[
            target
        ]
    absent = run("snakemake", "why_c", "--dry-run")
    assert absent.returncode == 2
    assert "directcm: error: workflow/why.yaml: C: arm on cm of test equal needs the student" in absent.stderr


def test_csv_columns(true: Results) -> None:
    with open(true.root / "why/c.csv", newline="", encoding="utf-8") as found:
        assert next(csv.reader(found)) == TESTS
    assert isinstance(true.config, Config)
