"""Which of the project's files a verb's result depends on, from the import graph."""

from __future__ import annotations

import ast
import functools
import hashlib
import json
from contextlib import suppress
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from directcm.runtime.artifacts import write_text

PACKAGE_ROOT = Path(__file__).resolve().parents[3]
# In the repository, beside Snakemake's own records; another number where `canonical` gives another text.
KEPT = Path(".snakemake/directcm/code-1.json")
# Of a digest, in hexadecimal.
DIGITS = 16

# What these decide reaches a rule through its parameters or its command line, so editing them re-runs nothing by itself.
NEUTRAL = (
    "cli",
    "config",
    "errors",
    *(f"runtime.{name}" for name in ("environment", "outside", "progress", "sources", "unchanged")),
)
# But these: what methods, metrics and paths are is part of a result.
COUNTED = tuple(f"directcm.config.{name}" for name in ("paths", "registry", "specs"))
# What a module fills in lies beside it and bears its name: page.html, sheet.tex, sheet.table.html.
TEMPLATES = (".html", ".tex", ".mplstyle")


@functools.cache
def _graph() -> tuple[Any, frozenset[str]]:
    """The import graph, in which what is neutral imports nothing, and which modules are."""
    import grimp

    graph = grimp.build_graph("directcm", cache_dir=None, exclude_type_checking_imports=True)
    beneath = {m for name in NEUTRAL for m in (f"directcm.{name}", *graph.find_descendants(f"directcm.{name}"))}
    for module in (neutral := frozenset(beneath - {*COUNTED})):
        for imported in graph.find_modules_directly_imported_by(module):
            graph.remove_import(importer=module, imported=imported)
    return graph, neutral


@functools.cache
def sources(*modules: str, root: str) -> list[str]:
    """Paths (relative to the repository, sorted) of modules and all that they import within the project, and of their templates.

    `modules` are named without the package ("methods.cm"); a package's __init__ counts as imported by its modules.
    Raises ValueError for a module that does not exist.
    """
    graph, neutral = _graph()
    wanted: set[str] = set()
    for name in modules:
        if f"directcm.{name}" not in graph.modules - neutral:
            raise ValueError(f"directcm.{name} is not a module whose results depend on its code")
        wanted |= {f"directcm.{name}"} | set(graph.find_upstream_modules(f"directcm.{name}"))
    packages = {package for name in wanted for package in accumulate(name.split("."), "{}.{}".format)} - wanted
    wanted |= packages.union(*map(graph.find_upstream_modules, packages))
    paths = []
    for name in sorted(wanted - neutral):
        base = Path("src", *name.split("."))
        path = base / "__init__.py" if (Path(root) / base).is_dir() else base.with_suffix(".py")
        if not (Path(root) / path).is_file():
            raise ValueError(f"{path} is not a file of {root}")
        beside = (Path(root) / base).parent.glob(f"{base.name}.*")
        found = [path, *(file.relative_to(root) for file in beside if file.suffix in TEMPLATES)]
        paths += [file.as_posix() for file in found]
    return sorted(paths)


def digest(*modules: str, root: str | None = None) -> str:
    """16 hex digits (64 bits of a SHA-256) over the meaning of the files of `sources`: what other code than this has made is stale.

    Comments, docstrings and formatting do not count, but in templates, of which every byte does. All versions of Python that can
    read a file give it the same digest.
    """
    top = PACKAGE_ROOT if root is None else Path(root)
    # Parsing everything takes half a second: what known bytes say is kept.
    known, fresh = _read(top / KEPT), dict[str, str]()
    total = hashlib.sha256()
    for path in sources(*modules, root=str(top)):
        source = (top / path).read_bytes()
        meaning = raw = hashlib.sha256(source).hexdigest()
        if not path.endswith(TEMPLATES):
            if raw not in known:
                known[raw] = fresh[raw] = hashlib.sha256(canonical(source).encode()).hexdigest()
            meaning = known[raw]
        total.update(path.encode() + b"\0" + meaning.encode() + b"\0")
    if fresh:
        # With what others have written since. A folder that cannot be written costs the time again.
        with suppress(OSError):
            write_text(top / KEPT, json.dumps({**_read.__wrapped__(top / KEPT), **fresh}))
    return total.hexdigest()[:DIGITS]


def stamp(*modules: str, root: str | None = None) -> str:
    """Modules and their digest in one text, "training methods.cm @0123456789abcdef": how Snakemake's records name code."""
    return f"{' '.join(modules)} @{digest(*modules, root=root)}"


def canonical(source: bytes) -> str:
    """What a module says, as text: its syntax tree without comments, docstrings, positions and statements that do nothing.

    Written out here because `ast.dump` differs between versions of Python. Fields that are None or empty are left out, so a
    field that a later version adds changes nothing where it is not used. Different trees have different texts.
    """
    return _text(ast.parse(source))


def _text(value: Any) -> str:
    if isinstance(value, ast.AST):
        fields = {name: getattr(value, name, None) for name in value._fields}
        if isinstance(value, ast.JoinedStr):
            fields["values"] = _joined(value.values)
        # ctx follows from the place; kind is the u of u"…".
        said = [n for n, part in fields.items() if n not in ("ctx", "kind", "type_comment") and part not in (None, [])]
        return f"{type(value).__name__}({''.join(f'{name}={_text(fields[name])},' for name in said)})"
    if isinstance(value, list):
        return f"[{''.join(f'{_text(item)},' for item in value if not _idle(item))}]"
    # Not repr: which characters it escapes is a matter of the version's Unicode tables.
    return ascii(value)


def _idle(node: Any) -> bool:
    """`pass`, or a text that stands for itself, as a docstring does."""
    return isinstance(node, ast.Pass) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


def _joined(parts: list[Any]) -> list[Any]:
    """An f-string's parts with neighbouring texts as one and no empty ones: where texts are cut is a matter of the version."""
    out: list[Any] = []
    for is_text, group in groupby(parts, lambda part: isinstance(part, ast.Constant)):
        if not is_text:
            out += group
        elif text := "".join(part.value for part in group):
            out.append(ast.Constant(text))
    return out


@functools.cache
def _read(kept: Path) -> dict[str, str]:
    """What is kept; nothing where that is not there or not whole."""
    with suppress(OSError, ValueError):
        found = json.loads(kept.read_text(encoding="utf-8"))
        if isinstance(found, dict) and all(isinstance(v, str) and len(v) == 64 for v in found.values()):
            return found
    return {}
