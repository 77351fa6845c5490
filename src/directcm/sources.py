"""Which of the project's files a verb's result depends on, from the import graph."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

PACKAGE_ROOT = Path(__file__).resolve().parents[2]

# What these decide reaches a rule through its parameters or its command line, so editing them re-runs nothing by itself.
NEUTRAL = ("cli", "config", "environment", "errors", "outside", "progress", "preflight", "sources")
# What a module fills in lies beside it and bears its name: page.html, sheet.tex, sheet.table.html.
TEMPLATES = (".html", ".tex")


@functools.cache
def _graph() -> object:
    import grimp

    graph = grimp.build_graph("directcm", cache_dir=None, exclude_type_checking_imports=True)
    for name in NEUTRAL:
        graph.remove_module(f"directcm.{name}")
    return graph


@functools.cache
def sources(*modules: str, root: str) -> list[str]:
    """Paths (relative to the repository, sorted) of modules and all that they import within the project, and of their templates.

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
        beside = (Path(root) / base).parent.glob(f"{base.name}.*")
        found = [path, *(file.relative_to(root) for file in beside if file.suffix in TEMPLATES)]
        paths += [file.as_posix() for file in found]
    return sorted(paths)


def digest(*modules: str, root: str | None = None) -> str:
    """SHA-256 over the files of `sources`: what other code than this has made is not up to date, or not resumed."""
    top = str(PACKAGE_ROOT) if root is None else root
    total = hashlib.sha256()
    for path in sources(*modules, root=top):
        total.update(path.encode() + b"\0" + Path(top, path).read_bytes() + b"\0")
    return total.hexdigest()
