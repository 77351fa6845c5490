"""Sets of samples by name: of a student at an optimiser step, in so many sampling steps, and how else it was sampled.

    step~250,sampling_steps~1                        plain: evenly spaced times from pure noise, samples as they are
    step~250,sampling_steps~1,start~0.06,scaling~slope
    step~250,sampling_steps~2,relay~direct_cm,at~0.1

What is at its default stands in no name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from directcm.config.base import SCALINGS
from directcm.config.runs import spell
from directcm.config.specs import METHODS
from directcm.errors import UserError

# Start and scaling of a plain set.
PLAIN = (0.0, "raw")
# By how much share · N may miss a whole number: shares are decimals, and 1/18 is none.
_SLACK = 1e-6


def grid_index(share: float, intervals: int) -> int:
    """The index on a grid of `intervals` that lies at a share of it, 0 is pure noise. ValueError where none does before the end."""
    index = round(share * intervals)
    if abs(share * intervals - index) > _SLACK or not 0 <= index < intervals:
        raise ValueError(
            f"{spell(share)} of N = {intervals} intervals is no time of the grid before its end; 0, 1/N, 2/N … are"
        )
    return index


@dataclass(frozen=True)
class Variant:
    """A set of samples of a student.

    One step that starts at the share `start` of the grid, with its latents scaled; or a first step from pure noise and a second, at
    the share `at`, of the student of the method `relay`.
    """

    step: int
    sampling_steps: int
    start: float = PLAIN[0]
    scaling: str = PLAIN[1]
    relay: str = ""
    at: float = 0.0

    @property
    def varied(self) -> dict[str, Any]:
        """What is not as in a plain set, by name: what manifests and metrics.json say of it."""
        own = {f.name: (getattr(self, f.name), f.default) for f in fields(self)[2:]}
        return {name: value for name, (value, default) in own.items() if value != default}

    @property
    def scaled(self) -> bool:
        """Whether its latents are moved by a map that was fitted on the floor's noise."""
        return self.scaling != PLAIN[1]

    @property
    def name(self) -> str:
        """The set's name in its run's collections."""
        said = {"step": self.step, "sampling_steps": self.sampling_steps, **self.varied}
        return ",".join(f"{name}~{spell(value)}" for name, value in said.items())

    @classmethod
    def parse(cls, name: str) -> Variant:
        """What a name spells; a UserError that says what is right where it spells none, or not as `name` does."""
        try:
            given = dict(part.split("~", 1) for part in name.split(","))
            kinds = {"step": int, "sampling_steps": int, "start": float, "scaling": str, "relay": str, "at": float}
            found = cls(**{key: kinds[key](value) for key, value in given.items()})
        except (KeyError, TypeError, ValueError):
            found = None
        if found is None or found.name != name or not found._possible():
            raise UserError(
                f"{name!r} is no set of samples, such as step~250,sampling_steps~1, step~250,sampling_steps~1,start~0.06,scaling~slope "
                "or step~250,sampling_steps~2,relay~direct_cm,at~0.1"
            )
        return found

    def _possible(self) -> bool:
        known = self.scaling in SCALINGS and (not self.relay or self.relay in METHODS)
        if not known or self.step < 1 or not 0 <= self.start < 1:
            return False
        if self.relay:
            return self.sampling_steps == 2 and 0 < self.at < 1 and (self.start, self.scaling) == PLAIN
        one = (self.start, self.scaling) != PLAIN
        return self.at == 0 and (self.sampling_steps == 1 if one else self.sampling_steps >= 1)


def passes(variants: Iterable[Variant]) -> int:
    """Passes over as many rows as the evaluation has through students, for some sets of one of them.

    One from each start, another over the floor's noise where some set from there is scaled, and one of each relay, whose first step is
    that from pure noise.
    """
    variants = list(variants)
    starts = {variant.start for variant in variants}
    fitted = {variant.start for variant in variants if variant.scaled}
    return len(starts) + len(fitted) + sum(bool(variant.relay) for variant in variants)
