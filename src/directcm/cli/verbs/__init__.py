"""The verbs: every public function of a module here is one (`directcm.cli.declare`). A new file needs no other line."""

from collections.abc import Callable
from importlib import import_module
from inspect import isfunction
from pathlib import Path

# In the order of the work; other modules' verbs come last.
PHASES = ("material", "distill", "evaluation", "analysis", "upkeep")
_MODULES = dict.fromkeys([*PHASES, *sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))])

VERBS: dict[str, Callable[..., None]] = {
    name: found
    for module in (import_module(f"{__name__}.{stem}") for stem in _MODULES)
    for name, found in vars(module).items()
    if isfunction(found) and found.__module__ == module.__name__ and not name.startswith("_")
}
