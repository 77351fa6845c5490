"""Figures and tables declare themselves: a file is all it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from directcm.analysis import needs
from directcm.cli.declare import flags
from directcm.cli.verbs import VERBS
from directcm.config import Config, exhibits
from directcm.config.exhibits import Exhibit, declared

GOOD = '"""New."""\nEXHIBITS = {"new": {"title": "New one", "takes": "metrics setting"}}\n'


def test_every_file_is_on_the_command_line_and_takes_flags_of_its_verb() -> None:
    for kind, pattern in exhibits.MODULES.items():
        files = {path.stem.removeprefix("figure_") for path in exhibits.FOLDER.glob(pattern)}
        own = [one for one in exhibits.exhibits() if one.kind == kind]
        by_name = {flag.name: flag for flag in flags(VERBS[kind])}
        assert files == {one.word for one in own} == set(by_name["name"].option.choices)
        for one in own:
            assert set(one.takes.split()) < by_name.keys()
            # The command line knows a module, and not which of its exhibits is meant.
            assert {other.takes for other in own if other.module == one.module} == {one.takes}


def test_names_are_given_once() -> None:
    found = [one for exhibit in exhibits.exhibits() for one in exhibit.each]
    assert len({one.job for one in found}) == len(found)
    assert len({path for one in found for path in one.files.values()}) == sum(len(one.files) for one in found)
    assert {one.scope for one in found} == {"main", "paper"} and all(
        one.text and one.title and one.short for one in found
    )


def test_an_exhibit_for_each_value_of_a_wildcard() -> None:
    (sweep,) = (one for one in exhibits.exhibits() if one.rule == "figure_sweep")
    assert (sweep.stem, sweep.word, sweep.job) == ("sweep", "sweep", "figure_sweep_{axis}")
    assert [(one.name, one.needs, one.title) for one in sweep.each] == [
        ("sweep_N", "several_N", "Figure 3, sweep over N"),
        ("sweep_w", "several_w", "Figure 4, sweep over ω"),
    ]


def test_what_a_file_says(tmp_path: Path) -> None:
    path = tmp_path / "figures/figure_new.py"
    path.parent.mkdir()
    path.write_text(GOOD)
    (found,) = declared("figure", path, tmp_path)
    assert found == Exhibit(
        *("figure", "new", "analysis.figures.figure_new", "New.", "New one", "metrics setting"),
        short="New one",
        category="3 Figures",
    )
    assert found.files == {ending: f"figures/new.{ending}" for ending in ("pdf", "png", "csv")}
    assert exhibits.names("figure", tmp_path) == ["new"] and exhibits.exhibits(tmp_path) == [found]


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("EXHIBITS", "EXHIBIT", "declares no EXHIBITS"),
        ('"New one"', "str(1)", "declares no EXHIBITS"),
        ('{"title": "New one", "takes": "metrics setting"}', "1", "declares no EXHIBITS"),
        ('"takes": "metrics setting"', '"scope": "main"', "new lacks, or cannot have, takes"),
        ('"takes"', '"kind": "table", "takes"', "new lacks, or cannot have, kind"),
        ('"takes"', '"scope": "all", "takes"', "the scope of new is neither main nor paper"),
        ('"new"', '"new_{axis}"', "needs a title for each value"),
        ('"New one"', '{"N": "New one"}', "without one a single title"),
    ],
)
def test_what_a_file_must_not_say(tmp_path: Path, old: str, new: str, wrong: str) -> None:
    path = tmp_path / "figure_new.py"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=wrong) as error:
        declared("figure", path, tmp_path)
    assert str(path) in str(error.value)


def test_what_is_no_fact_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        needs, "exhibits", lambda: [Exhibit("table", "t", "m", "", "T", "metrics", needs="pair and luck")]
    )
    with pytest.raises(ValueError, match=r"m: needs 'pair and luck'.*'luck'.*facts are headline, "):
        needs.available(Config())
