"""The methods' declarations, read from their source files, so that planning and analysis import no torch.

A method is one file in `distill/methods/`; the file's name is its name in the configuration.

    LABEL = "Direct CM"                its name in tables and figures
    TEACHER, TARGETS = False, "forward"  whether a step asks the teacher; and the start points of which it needs the solved
                                       endpoints: "forward" (noised images), "prior" (pure noise), "trajectory" (all points
                                       of the teacher's trajectories), or "" for none
    FORWARDS = 1                       rows through the student's network per pair, the loss's forward included (the largest
                                       number, if it changes: `student_forwards`); a forward with its derivative counts as two

Optional:

    PROCESSES = ("karras",)            the processes on which it is defined
    HALVES = True                      N is halved until it is 1
    STORED = True                      it asks the teacher only for one solver step from start points of noised images, which
                                       may be stored with the targets already
    STATES = True                      its target is the state k solver steps from a start point on, solved beforehand
    TANGENT = True                     it differentiates the student along the ODE: it draws times of its own between those of a grid,
                                       asks a teacher for one slope in place of a solver's step, and has no use for a distance
                                       without a second derivative
    SETTINGS = {"mu": 0.95}            hyperparameters with their defaults, which `methods` of the configuration changes;
                                       `dropout` is the network's dropout in training, 0 for methods without it
    RANGES = "0 <= mu <= 1"            comparisons that the hyperparameters must satisfy; each must occur. If a default is
                                       an integer, so must be the value
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "distill/methods"
# The paper's two methods come first in every list.
FIRST = ("cm", "direct_cm")
START_POINTS = ("forward", "prior", "trajectory")


def require(good: object, otherwise: str) -> None:
    """ValueError with what is wrong, or what would be right, unless it is good."""
    if not good:
        raise ValueError(otherwise)


@dataclass(frozen=True)
class Declared:
    """The declarations of a method's file."""

    label: str
    teacher: bool
    targets: str
    forwards: float
    processes: tuple[str, ...] = ("vp", "karras")
    halves: bool = False
    stored: bool = False
    hparams: Mapping[str, float] = field(default_factory=dict)
    ranges: tuple[str, ...] = ()
    states: bool = False
    tangent: bool = False

    def refused(self, given: Mapping[str, float]) -> str | None:
        """The first error in hyperparameters that replace defaults, with what is expected; None if all are valid."""
        for key in given:
            if key not in self.hparams:
                known = f"; it has {', '.join(self.hparams)}" if self.hparams else ", which has none of its own"
                return f"unknown setting {key!r}{known}"
        hparams = {**self.hparams, **given}
        for key, default in self.hparams.items():
            if isinstance(default, int) and not float(hparams[key]).is_integer():
                return f"{key} = {hparams[key]:g}, expected a whole number"
        return broken(self.ranges, hparams)

    @property
    def pool(self) -> bool:
        """Whether it trains only on the pool of noised images or pure noise; the others draw fresh pairs, or trajectories."""
        return self.teacher or self.targets in ("forward", "prior")


# The syntax allowed in RANGES: comparisons of numbers, names and their powers.
_PARTS = (ast.Compare, ast.Lt, ast.LtE, ast.BinOp, ast.Pow, ast.UnaryOp, ast.USub, ast.Name, ast.Load, ast.Constant)


def conditions(ranges: str) -> tuple[str, ...]:
    """The comparisons in RANGES. Raises ValueError if it holds anything else."""
    parts = tuple(part.strip() for part in ranges.split(",")) if ranges else ()
    for part in parts:
        try:
            tree = ast.parse(part, mode="eval").body
        except SyntaxError:
            tree = ast.Constant(None)
        plain = isinstance(tree, ast.Compare) and all(isinstance(node, _PARTS) for node in ast.walk(tree))
        require(plain, f"{part!r} is not a comparison by < or <=")
    return parts


def named(condition: str) -> set[str]:
    """The hyperparameters in a condition."""
    return {node.id for node in ast.walk(ast.parse(condition)) if isinstance(node, ast.Name)}


def holds(condition: str, hparams: Mapping[str, float]) -> bool:
    """Whether hyperparameters satisfy a condition; False if it cannot be evaluated for them."""
    try:
        return bool(eval(condition, {"__builtins__": {}}, {key: float(value) for key, value in hparams.items()}))
    except (ArithmeticError, TypeError):
        # A negative power of 0, an overflow, or a complex value.
        return False


def broken(ranges: Iterable[str], hparams: Mapping[str, float]) -> str | None:
    """The first of some conditions that numbers do not keep, as what they are and what is expected; None where they keep all."""
    for condition in ranges:
        if not holds(condition, hparams):
            values = " and ".join(f"{key} = {hparams[key]:g}" for key in hparams if key in named(condition))
            return f"{values}, expected {condition.replace('<=', '≤')}"
    return None


def literals(text: str) -> dict[str, Any]:
    """The plain values that a module's text gives names to, and its docstring as __doc__; nothing of it is run."""
    tree = ast.parse(text)
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


def number(value: object) -> bool:
    """Whether it is one, and not True or False."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def declared(path: Path) -> Declared:
    """What a method's file declares. Raises ValueError where something is missing or not a plain value."""
    found = literals(path.read_text(encoding="utf-8"))

    def kept(ranges: object) -> bool:
        try:
            parts = conditions(str(ranges))
        except ValueError:
            return False
        hparams = found["SETTINGS"]
        return {n for part in parts for n in named(part)} == set(hparams) and all(holds(p, hparams) for p in parts)

    checks = {
        "LABEL": ("text", lambda v: isinstance(v, str)),
        "TEACHER": ("True or False", lambda v: isinstance(v, bool)),
        "TARGETS": (f'"" or one of {", ".join(START_POINTS)}', lambda v: v in ("", *START_POINTS)),
        "FORWARDS": ("a number", number),
        "PROCESSES": ("names of processes", lambda v: isinstance(v, tuple) and set(v) <= {"vp", "karras"}),
        "HALVES": ("True or False", lambda v: isinstance(v, bool)),
        "STORED": ("True or False", lambda v: isinstance(v, bool)),
        "SETTINGS": ("numbers by name", lambda v: isinstance(v, dict) and all(map(number, v.values()))),
        "RANGES": ("comparisons that name each of SETTINGS and nothing else, and that the defaults keep", kept),
        "STATES": ("True or False", lambda v: isinstance(v, bool)),
        "TANGENT": ("True or False", lambda v: isinstance(v, bool)),
    }
    optional: dict[str, Any] = {
        "PROCESSES": Declared.processes,
        "HALVES": False,
        "STORED": False,
        "STATES": False,
        "TANGENT": False,
        "SETTINGS": {},
        "RANGES": "",
    }
    found = optional | found
    for key, (what, good) in checks.items():
        require(key in found and good(found[key]), f"{path} declares no {key} = {what}")
    stored = not found["STORED"] or (found["TEACHER"] and found["TARGETS"] in ("", "forward"))
    require(stored, f"{path} declares no STORED = False, without a teacher or with TARGETS = {found['TARGETS']!r}")
    states = not found["STATES"] or (found["TARGETS"] == "forward" and not found["TEACHER"])
    require(states, f"{path} declares no STATES = False, with a teacher or with TARGETS = {found['TARGETS']!r}")
    found["RANGES"] = conditions(found["RANGES"])
    return Declared(*(found[key] for key in checks))


@functools.cache
def methods(folder: Path = FOLDER) -> dict[str, Declared]:
    """All methods by name: the paper's two, then the others in alphabetical order."""
    names = sorted(path.stem for path in folder.glob("*.py") if not path.stem.startswith("_"))
    order = [name for name in FIRST if name in names] + [name for name in names if name not in FIRST]
    return {name: declared(folder / f"{name}.py") for name in order}
