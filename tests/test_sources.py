"""Which files a verb depends on."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from directcm.runtime import sources as sources_module
from directcm.runtime.sources import KEPT, NEUTRAL, TEMPLATES, canonical, sources

ROOT = str(Path(__file__).parents[1])


def names(*modules: str) -> set[str]:
    found = sources(*modules, root=ROOT)
    assert found == sorted(found) and len(set(found)) == len(found)
    assert all((Path(ROOT) / f).is_file() and f.startswith("src/directcm/") for f in found)
    return {f.removeprefix("src/directcm/") for f in found}


def test_a_methods_closure_holds_itself_alone_among_methods() -> None:
    found = names("distill.training", "distill.methods.direct_cm")
    assert {
        "distill/training.py",
        "distill/methods/direct_cm.py",
        "distill/methods/__init__.py",
        "runtime/loop.py",
        "distill/targets.py",
        "distill/students.py",
        "runtime/rng.py",
    } <= found
    assert "distill/methods/cm.py" not in found and "diffusion/teachers/micro_sdxl.py" not in found
    assert not any(f.startswith(("evaluation/metrics/", "analysis/")) for f in found)
    assert names("distill.training", "distill.methods.cm") ^ found == {
        "distill/methods/cm.py",
        "distill/methods/direct_cm.py",
    }


@pytest.mark.parametrize(
    "verb",
    [
        "distill.targets",
        "evaluation.endpoints",
        "evaluation.trajectories",
        "evaluation.error_by_time",
        "evaluation.sampling",
        "evaluation.editing",
    ],
)
def test_what_solves_and_samples_depends_on_no_method(verb: str) -> None:
    found = names(verb)
    assert {
        f"{verb.replace('.', '/')}.py",
        "runtime/artifacts.py",
        "distill/encode.py",
        "runtime/rng.py",
        "diffusion/processes.py",
        "diffusion/solvers.py",
    } <= found
    assert not any(f.startswith(("distill/methods/", "evaluation/metrics/", "analysis/", "datasets/")) for f in found)
    assert "distill/training.py" not in found and "diffusion/teachers/micro_sdxl.py" not in found
    assert ("distill/students.py" in found) is (
        verb in ("evaluation.error_by_time", "evaluation.sampling", "evaluation.editing")
    )


def test_each_data_set_depends_on_itself_alone() -> None:
    assert names("datasets", "datasets.photos") ^ names("datasets", "datasets.digits") == {
        "datasets/photos.py",
        "datasets/digits.py",
    }


def test_the_teachers_closure_holds_no_method() -> None:
    found = names("diffusion.teachers.micro_sdxl")
    assert {
        "diffusion/teachers/micro_sdxl.py",
        "diffusion/teachers/__init__.py",
        "runtime/loop.py",
        "diffusion/processes.py",
        "runtime/artifacts.py",
    } <= found
    assert not any(
        f.startswith("distill/methods/")
        or f in ("distill/training.py", "evaluation/sampling.py", "diffusion/solvers.py")
        for f in found
    )


def test_the_package_counts_and_the_neutral_ones_do_not() -> None:
    found = names("evaluation.sampling")
    assert "__init__.py" in found
    assert not any(
        f.startswith((f"{n}.py", f"{n}/"))
        for f in found
        for n in (m.replace(".", "/") for m in NEUTRAL)
        if n != "config"
    )
    # Of config/ what metrics and paths are alone.
    measured = names("evaluation.metrics.evaluate")
    assert {f for f in measured if f.startswith("config/")} == {"config/registry.py", "config/specs.py"}


def test_analysis_does_not_depend_on_models() -> None:
    found = names("analysis.tables.table1")
    assert (
        not any(f.startswith(("diffusion/teachers/", "distill/methods/")) for f in found)
        and "distill/training.py" not in found
    )


def test_a_verbs_templates_are_its_own() -> None:
    assert {"analysis/page.html", "analysis/tables/sheet.html", "analysis/tables/sheet.table.html"} <= names(
        "analysis.pages.opening"
    )
    table, claims = names("analysis.tables.table1"), names("analysis.tables.claims")
    assert "analysis/tables/sheet.tex" in table and "analysis/tables/claims.tex" in claims - table
    assert not any(
        f.endswith((".html", ".tex")) for f in names("analysis.figures.figure_results") | names("evaluation.sampling")
    )


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
        sources("runtime.rng", root=str(tmp_path))


def test_the_digest_follows_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(sources_module.PACKAGE_ROOT / "src" / "directcm", tmp_path / "src" / "directcm")
    before = sources_module.digest("distill.training", "distill.methods.cm")
    monkeypatch.setattr(sources_module, "PACKAGE_ROOT", tmp_path)
    assert sources_module.digest("distill.training", "distill.methods.cm") == before
    other = sources_module.digest("distill.training", "distill.methods.direct_cm")
    path = tmp_path / "src" / "directcm" / "distill" / "methods" / "cm.py"
    text = path.read_text()
    path.write_text(text.replace('"""', '"""Better said. ', 1) + "\n\n\n# A comment.\n")
    assert sources_module.digest("distill.training", "distill.methods.cm") == before
    path.write_text(text + "\nEDITED = True\n")
    assert sources_module.digest("distill.training", "distill.methods.cm") != before
    assert sources_module.digest("distill.training", "distill.methods.direct_cm") == other != before


PROGRAM = '''"""What it is for."""

import math

SCALE = {"a": 1, **{}}  # one


class Box:
    """A box."""

    side: float = 2.0
    """Its length."""

    def area(self, times: int = 2, *, less: float | None = None) -> float:
        """Its area."""
        text = f"{self.side:.{times}f} wide" "."
        if less is None or less < 0:
            return self.side * self.side - 1
        return math.sqrt(self.side) + len(text)


def nothing() -> None:
    """To be written."""
'''
SAME = {
    "comment": ("# one", "# the first\n# and only one"),
    "docstring of a module": ("What it is for.", "What it is good for."),
    "docstring of a class": ("A box.", "A box,\n\n    with sides."),
    "no docstring": ('        """Its area."""\n', ""),
    "docstring of an attribute": ('    """Its length."""\n', ""),
    "docstring alone": ('"""To be written."""', "pass"),
    "formatting": ("self, times: int = 2, *", "\n        self,\n        times : int=2 ,\n        *"),
    "quotes": ('"a"', "'a'"),
    "text in pieces": ('f"{self.side:.{times}f} wide" "."', 'f"{self.side:.{times}f} " "wide."'),
    "parentheses": ("self.side * self.side - 1", "((self.side * self.side) - 1)"),
    "a number in other digits": ("2.0", "2.00"),
    "line ends": ("\n", "\r\n"),
}
OTHER = {
    "constant": ("2.0", "2.5"),
    "kind of a number": ("2.0", "2"),
    "renamed variable": ("side", "edge"),
    "operator": ("self.side * self.side", "self.side + self.side"),
    "order": ("self.side * self.side - 1", "self.side * (self.side - 1)"),
    "default": ("times: int = 2", "times: int = 3"),
    "no default": ("less: float | None = None", "less: float | None"),
    "annotation": ("times: int", "times: float"),
    "text": ('"a"', '"b"'),
    "text of an f-string": (" wide", " broad"),
    "format": (":.{times}f", ":{times}f"),
    "bytes": ('"a"', 'b"a"'),
    "comparison": ("less < 0", "less <= 0"),
    "unpacking": ("**{}", '"b": {}'),
    "import": ("import math", "import math as math"),
    "decorator": ("    def area", "    @property\n    def area"),
    "one statement less": ("import math\n", ""),
    "keyword or not": ("times: int = 2, *, less", "times: int = 2, less"),
}


def edited(edit: tuple[str, str]) -> str:
    assert edit[0] in PROGRAM
    text = PROGRAM.replace(*edit)
    compile(text, "edited", "exec")
    return text


@pytest.mark.parametrize("edit", SAME.values(), ids=SAME)
def test_what_is_not_code_does_not_count(edit: tuple[str, str]) -> None:
    assert canonical(edited(edit).encode()) == canonical(PROGRAM.encode())


def test_every_edit_of_code_counts() -> None:
    texts = [canonical(edited(edit).encode()) for edit in OTHER.values()]
    assert len({*texts, canonical(PROGRAM.encode())}) == len(OTHER) + 1


@given(
    place=st.integers(min_value=0, max_value=10_000),
    number=st.one_of(st.integers(min_value=0), st.floats(min_value=0, allow_infinity=False)),
    text=st.text("abcé ", min_size=1),
)
def test_another_value_anywhere_counts_unless_it_is_a_docstring(place: int, number: float, text: str) -> None:
    tree = ast.parse(PROGRAM)
    docs = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    node, before = nodes[place % len(nodes)], ast.dump(tree)
    node.value = text if isinstance(node.value, str) else number
    source = ast.unparse(tree)
    assert ast.dump(ast.parse(source)) == ast.dump(tree)
    same = ast.dump(tree) == before or node in docs
    assert (canonical(source.encode()) == canonical(PROGRAM.encode())) is same


def test_our_modules_read_the_same_after_they_are_written_anew() -> None:
    for path in sorted(Path(ROOT, "src").rglob("*.py"))[::4]:
        source = path.read_bytes()
        assert canonical(ast.unparse(ast.parse(source)).encode()) == canonical(source), path


def test_what_later_versions_of_python_add_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As 3.12 has `type_params` in every function and class, an empty list here, and some other version a field that is None."""
    before = canonical(PROGRAM.encode())
    parse = ast.parse

    def later(source: bytes) -> ast.AST:
        tree = parse(source)
        for node in ast.walk(tree):
            node._fields = (*node._fields, "type_params_of_another_version", "hint_of_another_version")  # type: ignore[misc]
            node.type_params_of_another_version, node.hint_of_another_version = [], None  # type: ignore[attr-defined]
        return tree

    monkeypatch.setattr(sources_module.ast, "parse", later)
    assert canonical(PROGRAM.encode()) == before


def test_no_result_depends_on_a_docstring() -> None:
    """Digests pass over docstrings, so what counts must not read them."""
    top = Path(ROOT, "src/directcm")
    readers = {p.relative_to(top).as_posix() for p in top.rglob("*.py") if re.search(r"__doc__|getdoc", p.read_text())}
    # Of a figure or table it is the caption where no file is: the report shows it, and no result is made of it.
    assert readers <= {
        "cli/__init__.py",
        "config/reference.py",
        "config/base.py",
        "config/registry.py",
        "config/exhibits.py",
    }


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(sources_module.PACKAGE_ROOT / "src" / "directcm", tmp_path / "src" / "directcm")
    monkeypatch.setattr(sources_module, "PACKAGE_ROOT", tmp_path)
    sources_module._read.cache_clear()
    return tmp_path


def test_digests_are_kept_and_nothing_is_parsed_twice(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sources_module.digest("runtime.rng")
    kept = json.loads((copy / KEPT).read_text())
    assert len(kept) == len(sources("runtime.rng", root=str(copy)))
    monkeypatch.setattr(sources_module, "canonical", lambda source: pytest.fail("parsed again"))
    sources_module._read.cache_clear()
    assert sources_module.digest("runtime.rng") == before
    # What another process has kept since stays.
    (copy / KEPT).write_text(json.dumps({**kept, "0" * 64: "1" * 64}))
    monkeypatch.undo()
    sources_module._read.cache_clear()
    sources_module.digest("diffusion.solvers", root=str(copy))
    assert {**kept, "0" * 64: "1" * 64}.items() < json.loads((copy / KEPT).read_text()).items()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"a": "short"}', "\x00"])
def test_a_broken_file_of_kept_digests_is_written_anew(copy: Path, content: str) -> None:
    before = sources_module.digest("runtime.rng")
    (copy / KEPT).write_text(content)
    sources_module._read.cache_clear()
    assert sources_module.digest("runtime.rng") == before and json.loads((copy / KEPT).read_text())


def test_where_nothing_can_be_kept_digests_are_the_same(copy: Path) -> None:
    before = sources_module.digest("runtime.rng")
    shutil.rmtree(copy / ".snakemake")
    (copy / ".snakemake").write_text("a file where the folder would be")
    sources_module._read.cache_clear()
    assert sources_module.digest("runtime.rng") == before


def test_many_processes_may_keep_digests_at_once(copy: Path) -> None:
    code = f"from directcm.runtime import sources; sources.digest('distill.training', 'evaluation.sampling', root={str(copy)!r})"
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [each.wait() for each in running] == [0] * 4
    assert len(json.loads((copy / KEPT).read_text())) == len(
        sources("distill.training", "evaluation.sampling", root=str(copy))
    )
    assert [path.name for path in (copy / KEPT).parent.iterdir()] == [KEPT.name]


def test_a_stamp_names_the_modules() -> None:
    found = sources_module.stamp("distill.training", "distill.methods.cm")
    assert (
        found
        == f"distill.training distill.methods.cm @{sources_module.digest('distill.training', 'distill.methods.cm')}"
    )
    assert re.fullmatch(r"[0-9a-f]{16}", found.partition("@")[2])


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
