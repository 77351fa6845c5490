"""Which of the project's files a verb's result depends on, from the import graph."""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

PACKAGE_ROOT = Path(__file__).resolve().parents[2]

# What these decide reaches a rule through its parameters or its command line, so editing them re-runs nothing by itself.
NEUTRAL = ("cli", "config", "errors", "progress", "preflight", "sources")


@functools.cache
def _graph() -> object:
    import grimp

    graph = grimp.build_graph("directcm", cache_dir=None, exclude_type_checking_imports=True)
    for name in NEUTRAL:
        graph.remove_module(f"directcm.{name}")
    return graph


@functools.cache
def sources(*modules: str, root: str) -> list[str]:
    """Paths (relative to the repository, sorted) of modules and all that they import within the project.

    `modules` are named without the package ("methods.cm"); a package's __init__ counts as imported by its modules.
    Raises ValueError for a module that does not exist.
    """
    graph = _graph()
    wanted: set[str] = set()
    for name in modules:
        if f"directcm.{name}" not in graph.modules:  # type: ignore[attr-defined]
            raise ValueError(f"directcm.{name} is not a module whose results depend on its code")
        wanted |= {f"directcm.{name}"} | set(graph.find_upstream_modules(f"directcm.{name}"))  # type: ignore[attr-defined]
    for name in list(wanted):
        parts = name.split(".")
        for end in range(1, len(parts)):
            package = ".".join(parts[:end])
            if package not in wanted:
                wanted |= {package} | set(graph.find_upstream_modules(package))  # type: ignore[attr-defined]
    paths = []
    for name in sorted(wanted):
        base = Path("src", *name.split("."))
        path = base / "__init__.py" if (Path(root) / base).is_dir() else base.with_suffix(".py")
        if not (Path(root) / path).is_file():
            raise ValueError(f"{path} is not a file of {root}")
        paths.append(path.as_posix())
    return paths


def digest(*modules: str) -> str:
    """SHA-256 over the files of `sources`: unfinished work of other code than this is not resumed."""
    total = hashlib.sha256()
    for path in sources(*modules, root=str(PACKAGE_ROOT)):
        total.update(path.encode() + b"\0" + (PACKAGE_ROOT / path).read_bytes() + b"\0")
    return total.hexdigest()


def declares(method: str, what: str, root: str) -> bool:
    """What a method's file says it needs ("TEACHER", "TARGETS"), read from its source, so that planning imports no torch.

    Raises ValueError where the file says nothing of it.
    """
    path = Path(root, "src", "directcm", "methods", f"{method}.py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            names = [getattr(target, "id", "") for target in node.targets[0].elts]
            if what in names:
                return bool(ast.literal_eval(node.value)[names.index(what)])
    raise ValueError(f"{path} declares no {what}")
