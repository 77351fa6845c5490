"""Methods declare themselves: a file is all it takes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directcm.config import registry
from directcm.config.registry import Declared, conditions, declared, holds, methods

GOOD = 'LABEL = "New"\nTEACHER, TARGETS, FORWARDS = True, "", 3\n'


def test_the_papers_two() -> None:
    found = methods()
    assert list(found)[:2] == ["cm", "direct_cm"]
    # CM evaluates both ends of a teacher's step; Direct CM regresses onto solved endpoints.
    assert found["cm"] == Declared("CM", True, "", 2, stored=True)
    assert found["direct_cm"] == Declared("Direct CM", False, "forward", 1)
    assert len({method.label for method in found.values()}) == len(found)


def test_every_file_is_a_method() -> None:
    files = {path.stem for path in registry.FOLDER.glob("*.py")} - {"__init__"}
    assert set(methods()) == files


def test_a_new_file_is_a_new_method(tmp_path: Path) -> None:
    for name in ("zeta", "cm", "alpha", "_private"):
        (tmp_path / f"{name}.py").write_text(GOOD)
    assert list(methods(tmp_path)) == ["cm", "alpha", "zeta"]
    assert methods(tmp_path)["zeta"] == Declared("New", True, "", 3)


def test_what_may_be_left_out(tmp_path: Path) -> None:
    more = 'PROCESSES = ("karras",)\nHALVES = True\nSETTINGS = {"mu": 0.9, "s0": 2}\nRANGES = "mu <= 1, 1 <= s0"\n'
    (tmp_path / "new.py").write_text(GOOD + more)
    own, ranges = {"mu": 0.9, "s0": 2}, ("mu <= 1", "1 <= s0")
    assert declared(tmp_path / "new.py") == Declared("New", True, "", 3, ("karras",), True, False, own, ranges)


@pytest.mark.parametrize(
    ("old", "new", "missing"),
    [
        ('LABEL = "New"\n', "", "LABEL = text"),
        ('"New"', "7", "LABEL = text"),
        ('True, "", 3', "True, 0, 3", "TARGETS"),
        ('True, "", 3', 'True, "backward", 3', "TARGETS"),
        ('True, "", 3', 'True, "", True', "FORWARDS = a number"),
        ('True, "", 3', 'len([]), "", 3', "TEACHER = True or False"),
        ("3\n", '3\nPROCESSES = ("ve",)\n', "PROCESSES"),
        ("3\n", '3\nSETTINGS = {"mu": True}\n', "SETTINGS = numbers by name"),
        ("3\n", "3\nHALVES = 1\n", "HALVES"),
        ("3\n", "3\nSTORED = 1\n", "STORED = True or False"),
        # Stored steps are those of noised images, and of what asks a teacher.
        ('True, "", 3', 'True, "prior", 3\nSTORED = True', "STORED"),
        ('True, "", 3', 'False, "", 3\nSTORED = True', "STORED"),
        # Who adds a method with numbers of its own says what they may be.
        ("3\n", '3\nSETTINGS = {"mu": 0.9}\n', "RANGES = comparisons that name each of SETTINGS"),
        ("3\n", '3\nSETTINGS = {"mu": 0.9, "s": 2}\nRANGES = "mu <= 1"\n', "RANGES"),
        ("3\n", '3\nSETTINGS = {"mu": 0.9}\nRANGES = "mu <= 1, nu <= 1"\n', "RANGES"),
        ("3\n", '3\nSETTINGS = {"mu": 0.9}\nRANGES = "mu <= 0.5"\n', "RANGES"),
        ("3\n", '3\nSETTINGS = {"mu": 0.9}\nRANGES = "mu"\n', "RANGES"),
        ("3\n", '3\nSETTINGS = {"mu": 0.9}\nRANGES = "mu =< 1"\n', "RANGES"),
        ("3\n", '3\nSETTINGS = {"mu": 0.9}\nRANGES = "abs(mu) <= 1"\n', "RANGES"),
        ("3\n", '3\nSETTINGS = {"mu": 0.9}\nRANGES = ("mu <= 1",)\n', "RANGES"),
        ("3\n", '3\nRANGES = "mu <= 1"\n', "RANGES"),
    ],
)
def test_what_a_file_does_not_say(tmp_path: Path, old: str, new: str, missing: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ValueError, match=f"broken.py declares no {missing}"):
        declared(path)


def test_ranges_are_read_as_they_are_written() -> None:
    assert conditions("") == () and conditions("1 <= s0 <= s1, q**n < 1e6") == ("1 <= s0 <= s1", "q**n < 1e6")
    assert holds("1 <= s0 <= s1", {"s0": 2, "s1": 2}) and not holds("1 <= s0 <= s1", {"s0": 3, "s1": 2})
    # Whole numbers too: a power of them is not worked out to its last digit.
    assert not holds("q**n < 1e6", {"q": 10**9, "n": 10**9})
    for q, n in ((0, -1), (-2, 0.5), (math.nan, 1), (math.inf, 2)):
        assert not holds("q**n < 1e6", {"q": q, "n": n})


@pytest.mark.parametrize(
    ("name", "change", "wrong"),
    [
        ("cd", {"mu": 1.5}, "mu = 1.5, expected 0 ≤ mu ≤ 1"),
        ("ct", {"s1": -3}, "s0 = 2 and s1 = -3, expected 1 ≤ s0 ≤ s1 ≤ 10000"),
        ("ict", {"s1": 5}, "s0 = 10 and s1 = 5, expected 1 ≤ s0 ≤ s1 ≤ 10000"),
        ("ict", {"p_std": 0}, "p_std = 0, expected 0 < p_std ≤ 100"),
        ("ect", {"stages": 0}, "stages = 0, expected 1 ≤ stages"),
        ("ect", {"q": 0}, "q = 0, expected 1 < q"),
        # 1 − 1/q^stages would be 1, and t − r nothing to divide by.
        ("ect", {"stages": 60}, "q = 2 and stages = 60, expected q**stages ≤ 1e6"),
        ("ect", {"stages": 2.5}, "stages = 2.5, expected a whole number"),
        ("ect", {"stages": math.inf}, "stages = inf, expected a whole number"),
        ("gc_ct", {"p": 7}, "p = 7, expected 0 ≤ p ≤ 1"),
        ("cmt", {"mid": 3}, "mid = 3, expected 0 ≤ mid ≤ 1"),
        ("cmt", {"mid": 1}, None),
        ("direct_then_cm", {"direct": 0}, None),
        ("ect", {"q": 4.0}, None),
        ("ect", {"q": 256.0, "stages": 2}, None),
    ],
)
def test_what_is_wrong_with_a_number(name: str, change: dict[str, float], wrong: str | None) -> None:
    method = methods()[name]
    assert method.refused({**method.hparams, **change}) == wrong


@pytest.mark.parametrize("name", methods())
def test_the_papers_numbers_are_within_their_ranges(name: str) -> None:
    assert methods()[name].refused(methods()[name].hparams) is None


@pytest.mark.parametrize(("name", "base"), [("gc_ct", "ct"), ("gc_ict", "ict"), ("cmt", "ect")])
def test_what_is_built_on_a_method_has_its_numbers(name: str, base: str) -> None:
    on, under = methods()[name], methods()[base]
    assert under.hparams.items() <= on.hparams.items() and set(under.ranges) <= set(on.ranges)


@given(data=st.data())
def test_no_number_is_beyond_all_bounds(data: st.DataObject) -> None:
    """None of a method's own numbers is free: each is refused where it is far off, and where it is no number."""
    name = data.draw(st.sampled_from([name for name, method in methods().items() if method.hparams]))
    key = data.draw(st.sampled_from(sorted(methods()[name].hparams)))
    far = data.draw(st.sampled_from([math.nan, math.inf, -math.inf, 1e300, -1e300]))
    wrong = methods()[name].refused({**methods()[name].hparams, key: far})
    assert wrong is not None and f"{key} = {far:g}" in wrong and len(wrong.splitlines()) == 1


def test_the_page_of_the_methods_says_what_the_files_say() -> None:
    """Of those that stand in it: their lines and numbers. A new method need not."""
    page = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
    table = page[page.index("| `method` |") :].partition("\n\n")[0].splitlines()[2:]
    for line in table:
        name, _, _, processes, lines, own, _ = (cell.strip() for cell in line.strip("|").split("|"))
        name, method = name.strip("`"), methods()[name.strip("`")]
        text = (registry.FOLDER / f"{name}.py").read_text(encoding="utf-8")
        assert int(lines) == len(text.splitlines()), name
        assert tuple(processes.partition(";")[0].split(", ")) == method.processes, name
        for key, value in method.hparams.items():
            shared = any(f"and {base}'s" in own for base in ("CT", "iCT", "ECT"))
            assert f"`{key}` {value:g}".replace("-", "−") in own or shared, (name, key)
