"""Which files a verb depends on."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from directcm import sources as sources_module
from directcm.sources import NEUTRAL, TEMPLATES, sources

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


@pytest.mark.parametrize("verb", ["targets", "endpoints", "trajectories", "error_by_time", "sampling", "editing"])
def test_what_solves_and_samples_depends_on_no_method(verb: str) -> None:
    found = names(verb)
    assert {f"{verb}.py", "artifacts.py", "encode.py", "rng.py", "processes.py", "solvers.py"} <= found
    assert not any(f.startswith(("methods/", "metrics/", "analysis/", "datasets/")) for f in found)
    assert "training.py" not in found and "teachers/micro_sdxl.py" not in found
    assert ("students.py" in found) is (verb in ("error_by_time", "sampling", "editing"))


def test_each_data_set_depends_on_itself_alone() -> None:
    assert names("datasets", "datasets.photos") ^ names("datasets", "datasets.digits") == {
        "datasets/photos.py",
        "datasets/digits.py",
    }


def test_the_teachers_closure_holds_no_method() -> None:
    found = names("teachers.micro_sdxl")
    assert {"teachers/micro_sdxl.py", "teachers/__init__.py", "loop.py", "processes.py", "artifacts.py"} <= found
    assert not any(f.startswith("methods/") or f in ("training.py", "sampling.py", "solvers.py") for f in found)


def test_the_package_counts_and_the_neutral_ones_do_not() -> None:
    found = names("sampling")
    assert "__init__.py" in found
    assert not any(f"{n}.py" in found for n in NEUTRAL)


def test_analysis_does_not_depend_on_models() -> None:
    found = names("analysis.tables.table1")
    assert not any(f.startswith(("teachers/", "methods/")) for f in found) and "training.py" not in found


def test_a_verbs_templates_are_its_own() -> None:
    assert {"analysis/page.html", "analysis/tables/sheet.html", "analysis/tables/sheet.table.html"} <= names(
        "analysis.opening"
    )
    table, claims = names("analysis.tables.table1"), names("analysis.tables.claims")
    assert "analysis/tables/sheet.tex" in table and "analysis/tables/claims.tex" in claims - table
    assert not any(f.endswith((".html", ".tex")) for f in names("analysis.figure_results") | names("sampling"))


def test_every_template_is_beside_the_module_that_fills_it() -> None:
    """And takes in no other than of modules that this one imports: else a verb's digest would lack it."""
    package = Path(ROOT) / "src/directcm"
    found = [path for suffix in TEMPLATES for path in package.rglob(f"*{suffix}")]
    assert len(found) > 8
    for path in found:
        module = path.with_name(path.name.partition(".")[0])
        assert module.with_suffix(".py").is_file(), path
        taken = re.findall(r'[{<]% *(?:extends|from|include|import) "([^"]+)"', path.read_text(encoding="utf-8"))
        own = names(".".join(module.relative_to(package).parts))
        assert {f"analysis/{name}" for name in taken} <= own, path


def test_an_unknown_module() -> None:
    with pytest.raises(ValueError, match="nothing"):
        sources("nothing_of_this_name", root=ROOT)


def test_an_unknown_module_is_an_error() -> None:
    with pytest.raises(Exception, match="nothing_of_this_name"):
        sources("nothing_of_this_name", root=ROOT)


def test_a_root_without_the_sources(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a file"):
        sources("rng", root=str(tmp_path))


def test_the_digest_follows_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(sources_module.PACKAGE_ROOT / "src" / "directcm", tmp_path / "src" / "directcm")
    before = sources_module.digest("training", "methods.cm")
    monkeypatch.setattr(sources_module, "PACKAGE_ROOT", tmp_path)
    assert sources_module.digest("training", "methods.cm") == before
    other = sources_module.digest("training", "methods.direct_cm")
    path = tmp_path / "src" / "directcm" / "methods" / "cm.py"
    path.write_text(path.read_text() + "\n# edited\n")
    assert sources_module.digest("training", "methods.cm") != before
    assert sources_module.digest("training", "methods.direct_cm") == other != before


def test_the_digest_follows_the_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(sources_module.PACKAGE_ROOT / "src" / "directcm", tmp_path / "src" / "directcm")
    monkeypatch.setattr(sources_module, "PACKAGE_ROOT", tmp_path)
    verbs = ("analysis.tables.table1", "analysis.tables.claims")
    before = [sources_module.digest(verb) for verb in verbs]
    path = tmp_path / "src/directcm/analysis/tables/sheet.table.html"
    path.write_text(path.read_text() + "{# edited #}")
    after = [sources_module.digest(verb) for verb in verbs]
    assert all(a != b for a, b in zip(before, after, strict=True))
    path = tmp_path / "src/directcm/analysis/tables/claims.html"
    path.write_text(path.read_text() + "{# edited #}")
    assert sources_module.digest(verbs[0]) == after[0] and sources_module.digest(verbs[1]) != after[1]
