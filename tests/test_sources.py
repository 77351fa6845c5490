"""Which files a verb depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from directcm.sources import NEUTRAL, sources

ROOT = str(Path(__file__).parents[1])


def names(*modules: str) -> set[str]:
    found = sources(*modules, root=ROOT)
    assert found == sorted(found) and len(set(found)) == len(found)
    assert all((Path(ROOT) / f).is_file() and f.startswith("src/directcm/") for f in found)
    return {f.removeprefix("src/directcm/") for f in found}


def test_a_methods_closure_holds_itself_alone_among_methods() -> None:
    found = names("training", "methods.direct_cm")
    assert {
        "training.py",
        "methods/direct_cm.py",
        "methods/__init__.py",
        "loop.py",
        "targets.py",
        "students.py",
        "rng.py",
    } <= found
    assert "methods/cm.py" not in found and "teachers/micro_sdxl.py" not in found
    assert not any(f.startswith(("metrics/", "analysis/")) for f in found)
    assert names("training", "methods.cm") ^ found == {"methods/cm.py", "methods/direct_cm.py"}


def test_the_teachers_closure_holds_no_method() -> None:
    found = names("teachers.micro_sdxl")
    assert {"teachers/micro_sdxl.py", "teachers/__init__.py", "loop.py", "processes.py", "artifacts.py"} <= found
    assert not any(f.startswith("methods/") or f in ("training.py", "sampling.py", "solvers.py") for f in found)


def test_the_package_counts_and_the_neutral_ones_do_not() -> None:
    found = names("sampling")
    assert "__init__.py" in found
    assert not any(f"{n}.py" in found for n in NEUTRAL)


def test_analysis_does_not_depend_on_models() -> None:
    found = names("analysis.table")
    assert not any(f.startswith(("teachers/", "methods/")) for f in found) and "training.py" not in found


@pytest.mark.xfail(
    strict=True, reason="bug: grimp's ModuleNotPresent comes through instead of the ValueError of the docstring"
)
def test_an_unknown_module() -> None:
    with pytest.raises(ValueError, match="nothing"):
        sources("nothing_of_this_name", root=ROOT)


def test_an_unknown_module_is_an_error() -> None:
    with pytest.raises(Exception, match="nothing_of_this_name"):
        sources("nothing_of_this_name", root=ROOT)


def test_a_root_without_the_sources(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a file"):
        sources("rng", root=str(tmp_path))
