"""What the methods' files say of themselves, read from their source, so that planning and analysis import no torch.

A method is a file in `methods/` and nothing else: its name there is its name in the configuration.

    LABEL = "Direct CM"                what tables and figures call it
    TEACHER, TARGETS = False, "forward"  does a step ask the teacher; of which start points does it need solved endpoints:
                                       "forward" (noised images), "prior" (pure noise), "trajectory" (all points of the
                                       teacher's own), or none, ""
    FORWARDS = 1                       rows through the student's network for one pair, the loss's forward included

and, where it is so,

    PROCESSES = ("karras",)            the processes that it is defined on
    HALVES = True                      N is halved until it is 1
    SETTINGS = {"mu": 0.95}            numbers of its own with their defaults, which `methods` of the configuration changes
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "methods"
# The paper's own two come first, wherever methods stand in a row.
FIRST = ("cm", "direct_cm")
COUPLINGS = ("forward", "prior", "trajectory")


@dataclass(frozen=True)
class Declared:
    """A method by what its file says."""

    label: str
    teacher: bool
    targets: str
    forwards: float
    processes: tuple[str, ...] = ("vp", "karras")
    halves: bool = False
    settings: Mapping[str, float] = field(default_factory=dict)


def declared(path: Path) -> Declared:
    """What a method's file declares. Raises ValueError where something is missing or not a plain value."""
    found: dict[str, Any] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            names = target.elts if isinstance(target, ast.Tuple) else [target]
            values = value.elts if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) else [value]
            for name, each in zip(names, values, strict=False):
                if isinstance(name, ast.Name):
                    try:
                        found[name.id] = ast.literal_eval(each)
                    except ValueError:
                        continue

    def number(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    checks = {
        "LABEL": ("text", lambda v: isinstance(v, str)),
        "TEACHER": ("True or False", lambda v: isinstance(v, bool)),
        "TARGETS": (f'"" or one of {", ".join(COUPLINGS)}', lambda v: v in ("", *COUPLINGS)),
        "FORWARDS": ("a number", number),
        "PROCESSES": ("names of processes", lambda v: isinstance(v, tuple) and set(v) <= {"vp", "karras"}),
        "HALVES": ("True or False", lambda v: isinstance(v, bool)),
        "SETTINGS": ("numbers by name", lambda v: isinstance(v, dict) and all(map(number, v.values()))),
    }
    optional = {"PROCESSES": Declared.processes, "HALVES": False, "SETTINGS": {}}
    for key, (what, good) in checks.items():
        if key not in found and key in optional:
            found[key] = optional[key]
        if key not in found or not good(found[key]):
            raise ValueError(f"{path} declares no {key} = {what}")
    return Declared(*(found[key] for key in checks))


@functools.cache
def methods(folder: Path = FOLDER) -> dict[str, Declared]:
    """All methods by name: the paper's first, the others in alphabetical order."""
    names = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    order = [name for name in FIRST if name in names] + [name for name in names if name not in FIRST]
    return {name: declared(folder / f"{name}.py") for name in order}
