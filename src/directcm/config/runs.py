"""What a run is: its ODE, its setting and itself, by the values that the paths of its results spell.

Manifests hold the values (`axes`), paths and CSV rows their spelling (`key`, `spelled`); `parse` and `of` read them back.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from contextlib import suppress
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from directcm.config.base import (
    ONE_SOLVER,
    Adapter,
    Block,
    Count,
    Density,
    Fraction,
    Guidance,
    Labels,
    Loss,
    Positive,
    Rate,
    Solver,
    Weight,
    describe,
)
from directcm.errors import UserError


def number(value: float | int) -> str:
    """A number as paths spell it: 3.0 → 3, 0.0001 → 0.0001, never an exponent with a sign."""
    text = format(Decimal(repr(float(value))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


# Tables ask for the same few values a million times. Typed, for 1, 1.0 and True are equal.
@lru_cache(maxsize=4096, typed=True)
def spell(value: Hashable) -> str:
    """A value of an axis as paths spell it, a number or a number's text: 3.0 and "3" → 3, 1e-4 → 0.0001, lora4 → lora4."""
    if isinstance(value, int):
        return str(value)
    try:
        return number(float(value if isinstance(value, float) else str(value)))
    except ValueError:
        return str(value)


def _read(value: object) -> object:
    """The number that a text spells, or what is given."""
    if isinstance(value, str):
        for kind in (int, float):
            with suppress(ValueError):
                return kind(value)
    return value


# Axes that are spelled, and stand in manifests, only where they are not at their default: what was made before they existed stays
# as it is. The teacher's seed is a folder of its own, the others stand at a key's end.
TEACHER_SEED = "teacher_seed"
VARIED: Mapping[str, str | int | float] = {"k": 1, "density": "uniform", "weight": "one", "labels": "ode", "ema": 0.0}


class Axes(BaseModel):
    """Values by the names of their axes; equal where all of them are."""

    model_config = ConfigDict(frozen=True)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The axes that every key spells: all but the teacher's seed and VARIED."""
        return tuple(name for name in cls.model_fields if name != TEACHER_SEED and name not in VARIED)

    def axes(self) -> dict[str, str | int | float]:
        """The values, as manifests hold them."""
        teacher_seed = getattr(self, TEACHER_SEED, 0)
        own = {name: getattr(self, name) for name in self.names()}
        return own | ({TEACHER_SEED: teacher_seed} if teacher_seed else {}) | self.varied

    @property
    def varied(self) -> dict[str, str | int | float]:
        """Those of VARIED that are not at their default."""
        return {name: value for name, default in VARIED.items() if (value := getattr(self, name, default)) != default}

    @property
    def redrawn(self) -> str:
        """Of a teacher that was drawn again the folder "teacher_seed~1/", which its keys begin with; "" of the default one."""
        teacher_seed = getattr(self, TEACHER_SEED, 0)
        return f"{TEACHER_SEED}~{teacher_seed}/" if teacher_seed else ""

    @cached_property
    def spelled(self) -> Mapping[str, str]:
        """The values, as paths and CSV rows spell them."""
        return {name: spell(value) for name, value in self.axes().items()}

    @cached_property
    def key(self) -> str:
        """The part of a path: name~value,name~value … as Snakemake's Paramspace spells it; numbers without exponents.

        What is not at its default of VARIED is added: +weight~snr. Not after a comma, which Snakemake cannot hand to a cluster's job.
        """
        varied = "".join(f"+{name}~{self.spelled[name]}" for name in self.varied)
        return self.redrawn + ",".join(f"{name}~{self.spelled[name]}" for name in self.names()) + varied

    @classmethod
    def pattern(cls) -> str:
        """All keys of its kind, as rules spell them: a wildcard for each value, {redrawn} before them, and {varied} after."""
        varied = "{varied}" if VARIED.keys() <= cls.model_fields.keys() else ""
        return "{redrawn}" + ",".join(f"{name}~{{{name}}}" for name in cls.names()) + varied

    @cached_property
    def words(self) -> str:
        """For a reader: "solver = ddim, N = 50 …"."""
        return ", ".join(f"{name} = {text}" for name, text in self.spelled.items())

    @classmethod
    def parse(cls, key: str) -> Self:
        """What a key spells; a UserError that names it where it spells none of these, or not as `key` does."""
        try:
            found = cls.of(dict(part.split("~", 1) for part in re.split("[/,+]", key)), "")
        except (ValueError, UserError):
            found = None
        if found is None or found.key != key:
            raise UserError(f"{key!r} is no {cls.__name__.lower()}, which is spelled {'~…,'.join(cls.names())}~…")
        return found

    @classmethod
    def of(cls, found: object, where: str, remedy: str = "") -> Self:
        """From a mapping that has these axes, as values or as text, and perhaps more; a UserError says of what, and what is wrong."""
        after = f"; {remedy}" if remedy else ""
        if not isinstance(found, Mapping):
            raise UserError(f"{where} is {found!r:.40}, expected {', '.join(cls.names())} and their values{after}")
        if missing := [name for name in cls.names() if name not in found]:
            raise UserError(f"{where} lacks {', '.join(missing)}{after}")
        try:
            return cls.model_validate({name: _read(found[name]) for name in cls.model_fields if name in found})
        except ValidationError as error:
            raise UserError(f"{describe(error, where)}{after}") from None

    def at(self, **other: object) -> Self:
        """The same but for these axes."""
        return self.of({**self.axes(), **other}, type(self).__name__.lower())

    def but(self, *names: str) -> tuple[str | int | float, ...]:
        """The values of all axes but these: equal for what differs in these alone."""
        return tuple(value for name, value in self.axes().items() if name not in names)


class OdeBlock(Block, Axes):
    """How the teacher's probability-flow ODE is solved unless a line of `students` says otherwise."""

    solver: Solver = Field("ddim", description=ONE_SOLVER)
    N: Positive = Field(50, description="intervals from pure noise to data; on vp it divides process.timesteps")
    w: Guidance = Field(3.0, description="guidance scale, Imagen form: 1 is unguided")


class Ode(OdeBlock):
    """A teacher's ODE and how it is solved."""

    teacher_seed: Count = 0


class Setting(Axes):
    """A run without method and seed: what two methods are compared in."""

    solver: Solver
    N: Positive
    w: Guidance
    adapter: Adapter
    loss: Loss
    lr: Rate
    batch_size: Positive
    pool: Positive
    steps: Positive
    teacher_seed: Count = 0
    k: Positive = 1
    density: Density = "uniform"
    weight: Weight = "one"
    labels: Labels = "ode"
    ema: Fraction = 0.0

    @cached_property
    def ode(self) -> Ode:
        """What the teacher solves in it, and its students' sampling times lie on."""
        return Ode.model_construct(**{name: getattr(self, name) for name in Ode.model_fields})


class _OfMethod(Axes):
    """The axis before those of the setting."""

    method: str


class Run(Setting, _OfMethod):
    """One student of the grid. Its axes: method, those of its setting, seed."""

    seed: Count

    @cached_property
    def labelled_by(self) -> Run | None:
        """The student whose outputs are this one's labels: of another seed, for with its own the two would share LoRA start and order."""
        if self.labels == VARIED["labels"]:
            return None
        method, _, adapter = self.labels.partition("-")
        return self.at(method=method, adapter=adapter or self.adapter, seed=self.seed + 1, labels=VARIED["labels"])

    @cached_property
    def setting(self) -> Setting:
        """What it shares with runs of other methods and seeds."""
        return Setting(**{name: getattr(self, name) for name in Setting.model_fields})


# Without the teacher's seed and VARIED: tables and figures are about one teacher, and methods as they are.
ODE_AXES, SETTING_AXES, RUN_AXES = (kind.names() for kind in (Ode, Setting, Run))
