"""What the methods' files say of themselves, read from their source, so that planning and analysis import no torch.

A method is a file in `methods/` and nothing else: its name there is its name in the configuration.

    LABEL = "Direct CM"                what tables and figures call it
    TEACHER, TARGETS = False, "forward"  does a step ask the teacher; of which start points does it need solved endpoints:
                                       "forward" (noised images), "prior" (pure noise), "trajectory" (all points of the
                                       teacher's own), or none, ""
    FORWARDS = 1                       rows through the student's network for one pair, the loss's forward included (of its later
                                       parts, where they differ: `student_forwards`)

and, where it is so,

    PROCESSES = ("karras",)            the processes that it is defined on
    HALVES = True                      N is halved until it is 1
    STORED = True                      all that it asks of the teacher is one solver step from its start points of noised images,
                                       which solving the ODE for other students has made already
    SETTINGS = {"mu": 0.95}            numbers of its own with their defaults, which `methods` of the configuration changes; one
                                       named dropout is the network's in training, 0 for methods without
    RANGES = "0 <= mu <= 1"            what they have to keep, comparisons that name each of them; where it has SETTINGS.
                                       A number whose default is whole has to be whole, too
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
    stored: bool = False
    settings: Mapping[str, float] = field(default_factory=dict)
    ranges: tuple[str, ...] = ()

    def refused(self, given: Mapping[str, float]) -> str | None:
        """What is wrong with numbers of a method's own in the place of its defaults, and what would be right; of the first that is."""
        for key in given:
            if key not in self.settings:
                own_ones = f"; it has {', '.join(self.settings)}" if self.settings else ", which has none of its own"
                return f"unknown setting {key!r}{own_ones}"
        own = {**self.settings, **given}
        for key, default in self.settings.items():
            if isinstance(default, int) and not float(own[key]).is_integer():
                return f"{key} = {own[key]:g}, expected a whole number"
        for condition in self.ranges:
            if not holds(condition, own):
                values = " and ".join(f"{key} = {own[key]:g}" for key in own if key in named(condition))
                return f"{values}, expected {condition.replace('<=', '≤')}"
        return None

    @property
    def pool(self) -> bool:
        """Whether it trains on the pool of start points and on nothing else; what learns from data draws pairs of its own."""
        return self.teacher or self.targets in ("forward", "prior")


# What a range is made of: comparisons of numbers and names and their powers.
_PARTS = (ast.Compare, ast.Lt, ast.LtE, ast.BinOp, ast.Pow, ast.UnaryOp, ast.USub, ast.Name, ast.Load, ast.Constant)


def conditions(ranges: str) -> tuple[str, ...]:
    """The comparisons of RANGES, one by one. Raises ValueError where it holds anything else."""
    parts = tuple(part.strip() for part in ranges.split(",")) if ranges else ()
    for part in parts:
        try:
            tree = ast.parse(part, mode="eval").body
        except SyntaxError:
            tree = ast.Constant(None)
        if not isinstance(tree, ast.Compare) or not all(isinstance(node, _PARTS) for node in ast.walk(tree)):
            raise ValueError(f"{part!r} is not a comparison by < or <=")
    return parts


def named(condition: str) -> set[str]:
    """The settings that a condition names."""
    return {node.id for node in ast.walk(ast.parse(condition)) if isinstance(node, ast.Name)}


def holds(condition: str, own: Mapping[str, float]) -> bool:
    """Whether numbers keep a condition; not, where it has no value for them."""
    try:
        return bool(eval(condition, {"__builtins__": {}}, {key: float(value) for key, value in own.items()}))
    except (ArithmeticError, TypeError):
        # A power of 0, beyond all floats, or of no real value.
        return False


def literals(path: Path) -> dict[str, Any]:
    """The plain values that a module's first level gives names to, and its docstring as __doc__; nothing of it is run."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: dict[str, Any] = {"__doc__": ast.get_docstring(tree) or ""}
    for node in tree.body:
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
    return found


def declared(path: Path) -> Declared:
    """What a method's file declares. Raises ValueError where something is missing or not a plain value."""
    found = literals(path)

    def number(value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    def kept(ranges: object) -> bool:
        own = found["SETTINGS"]
        try:
            parts = conditions(str(ranges))
        except ValueError:
            return False
        return {name for part in parts for name in named(part)} == set(own) and all(holds(part, own) for part in parts)

    checks = {
        "LABEL": ("text", lambda v: isinstance(v, str)),
        "TEACHER": ("True or False", lambda v: isinstance(v, bool)),
        "TARGETS": (f'"" or one of {", ".join(COUPLINGS)}', lambda v: v in ("", *COUPLINGS)),
        "FORWARDS": ("a number", number),
        "PROCESSES": ("names of processes", lambda v: isinstance(v, tuple) and set(v) <= {"vp", "karras"}),
        "HALVES": ("True or False", lambda v: isinstance(v, bool)),
        "STORED": ("True or False", lambda v: isinstance(v, bool)),
        "SETTINGS": ("numbers by name", lambda v: isinstance(v, dict) and all(map(number, v.values()))),
        "RANGES": ("comparisons that name each of SETTINGS and nothing else, and that the defaults keep", kept),
    }
    optional = {"PROCESSES": Declared.processes, "HALVES": False, "STORED": False, "SETTINGS": {}, "RANGES": ""}
    for key, (what, good) in checks.items():
        if key not in found and key in optional:
            found[key] = optional[key]
        if key not in found or not good(found[key]):
            raise ValueError(f"{path} declares no {key} = {what}")
    if found["STORED"] and not (found["TEACHER"] and found["TARGETS"] in ("", "forward")):
        raise ValueError(f"{path} declares no STORED = False, without a teacher or with TARGETS = {found['TARGETS']!r}")
    found["RANGES"] = conditions(found["RANGES"])
    return Declared(*(found[key] for key in checks))


@functools.cache
def methods(folder: Path = FOLDER) -> dict[str, Declared]:
    """All methods by name: the paper's first, the others in alphabetical order."""
    names = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    order = [name for name in FIRST if name in names] + [name for name in names if name not in FIRST]
    return {name: declared(folder / f"{name}.py") for name in order}
