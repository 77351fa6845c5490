"""What each metric, extractor, distance and kind of teacher is, as their modules declare it in plain values: read, never imported.

So planning, help and the configuration know them without torch, and a verb depends on the modules that it runs alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from directcm.config import registry

PACKAGE = Path(__file__).resolve().parents[1]
# What is read of a module, to its closing bracket: the syntax of all would take most of a short command's time.
_NAMES = "EXTRACTORS|METRICS|SHARED|DISTANCES|SOLVERS|DATA_SET|LAYOUT|KIND|SETTINGS|RANGES"
_STATEMENTS = re.compile(rf"^(?:{_NAMES}) = .*\n(?:(?:[ \t)\]}}#].*)?\n)*", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What all of them have: name, module below the package, and the place among its kind."""

    name: str
    module: str
    rank: int = 100


S = TypeVar("S", bound=Spec)


def declared(kind: Callable[..., S], where: str, name: str, *, one: bool = False) -> dict[str, S]:
    """What modules declare under a name, by rank, then by name; `where` are their patterns.

    A module declares several things by their names, with SHARED for all of them; or `one`, of the module's name, with SETTINGS and
    RANGES.

    Raises ValueError where something is missing, unknown or declared twice.
    """
    found: dict[str, S] = {}
    for path in sorted(path for pattern in where.split() for path in PACKAGE.glob(pattern)):
        text = path.read_text(encoding="utf-8")
        if not re.search(rf"^{name}\b", text, re.MULTILINE):
            continue
        values = registry.literals("".join(_STATEMENTS.findall(text)))
        registry.require(name in values, f"{path} declares {name} by something that is not a plain value")
        shared = values.get("SHARED", {})
        if one:
            shared = {"settings": values.get("SETTINGS", {}), "ranges": values.get("RANGES", "")}
        for key, own in ({path.stem: values[name]} if one else values[name]).items():
            registry.require(key not in found, f"{path} declares {key}, as another module does")
            try:
                found[key] = kind(
                    name=key, module=".".join(path.relative_to(PACKAGE).with_suffix("").parts), **{**shared, **own}
                )
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path} declares no {key} as {name} are: {error}") from None
    return dict(sorted(found.items(), key=lambda item: (item[1].rank, item[0])))


@dataclass(frozen=True, kw_only=True)
class Extractor(Spec):
    """A feature extractor. `weights` names files of runtime.weights; `trained`: it is trained here. `made_by`: its class."""

    made_by: str
    arrays: tuple[str, ...]
    weights: tuple[str, ...] = ()
    trained: bool = False


@dataclass(frozen=True, kw_only=True)
class Metric(Spec):
    """One metric. A metric on a stand-in network bears its own name (fd_tiny), never the real one's (fid).

    `better`: "lower" or "higher", or "neither" where a middle is best. `takes`, `function`, `part`: see directcm.evaluation.metrics. `test`: its permutation test in
    analysis.inference ("frechet", "kid", "cmmd"), which the search of sampling times uses too; a distance without one is judged by
    seeds alone. `same_noise`: it compares samples of one noise row by row.
    `unit`: as titles have it, {space} is latent or pixel. `bounds`: the least and the largest value, None where there is none; what is
    estimated without bias (KID, FD∞) can fall below 0.
    `paper`: row → the number the paper reports (2411.08954, main comparison, one step) for its own metric of this kind, `paper_name`.
    `headline`: it stands in Table 1, else in the table of all metrics only. `stand_in_for`: the metric on a published
    network whose place a *-tiny metric takes where that network is not at hand; "" where there is none. `least`: images on either
    side below which it is not defined. `part_of`: the metric that it takes apart: it is measured wherever that one is, stands in the
    table of parts, and is not compared between methods.
    """

    title: str
    better: str
    references: tuple[str, ...]
    takes: tuple[str, ...]
    function: str
    part: str = "value"
    test: str = ""
    extractor: str | None = None
    per_sample: bool = False
    same_noise: bool = False
    decimals: int = 3
    unit: str = ""
    bounds: tuple[float | None, float | None] = (None, None)
    paper_name: str = ""
    paper: Mapping[str, float] = field(default_factory=dict)
    same_scale_as_paper: bool = False
    headline: bool = False
    stand_in_for: str = ""
    least: int = 2
    part_of: str = ""

    def __post_init__(self) -> None:
        require = registry.require
        directed = self.better in ("lower", "higher", "neither")
        require(directed, f"better is {self.better!r}, expected lower, higher or neither")
        some = set() < set(self.references) <= set(REFERENCES)
        require(some, f"references are {self.references!r}, expected some of {', '.join(REFERENCES)}")
        known = self.extractor is None or self.extractor in EXTRACTORS
        require(known, f"extractor is {self.extractor!r}, expected one of {', '.join(EXTRACTORS)}")
        arrays = EXTRACTORS[self.extractor].arrays if self.extractor else ()
        there = {*TAKEN, *arrays, *LATENT, *(f"reference.{name}" for name in arrays)}
        require(there >= {*self.takes}, f"takes is {self.takes!r}, expected some of {', '.join(sorted(there))}")

    @property
    def needs_labels(self) -> bool:
        """Whether it is defined for data with labels only."""
        return "labels" in self.takes

    @property
    def of_latents(self) -> bool:
        """Whether it is of final latents alone: no image is looked at."""
        return set(self.takes) <= LATENT and "latents" in self.takes


# What samples are measured against: the teacher's samples of the same noise, its samples of the floor's noise, the data's images,
# the prompt, nothing.
REFERENCES = ("teacher", "other_noise", "data", "prompt", "none")
# What metrics take beside the arrays of their extractor, and what of these final latents are enough for.
TAKEN = ("latents", "rows", "images", "labels", "groups", "data", "seed")
LATENT = {"latents", "rows", "groups", "reference.latents", "reference.rows", "reference.directions"}
EXTRACTORS = declared(Extractor, "evaluation/metrics/*.py statistics/*.py", "EXTRACTORS")
METRICS = declared(Metric, "evaluation/metrics/*.py statistics/*.py", "METRICS")

# What a student has to beat in ODE error, with its row in tables: no training, no ODE (`evaluation/baselines.py`).
BASELINES = {
    "conditional_mean": "Conditional mean",
    "affine_map": "Affine map of the noise",
    "untrained": "Untrained start",
    "guided_step": "One guided step",
}

METHODS = {name: method.label for name, method in registry.methods().items()}


@dataclass(frozen=True, kw_only=True)
class Solver(Spec):
    """A solver of the teacher's ODE. `made_by`: its class."""

    title: str
    made_by: str


SOLVERS = {name: solver.title for name, solver in declared(Solver, "diffusion/solvers.py", "SOLVERS").items()}


@dataclass(frozen=True, kw_only=True)
class Distance(Spec):
    """What a student's loss compares by. `function` is the distance, or makes it of what it `takes`: "huber_c", "device".

    `weights` names files of the weights cache; `images`: it compares RGB images alone.
    """

    title: str
    function: str
    takes: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    images: bool = False


DISTANCES = declared(Distance, "diffusion/distances.py", "DISTANCES")


@dataclass(frozen=True, kw_only=True)
class Kind(Spec):
    """What kinds of data set and teacher have in common. `about`: what it is, for the page of the configuration.

    `settings`: key → (default, description) of its own block in the configuration, for what a class there need not say; `ranges`: what
    its numbers keep, comparisons as methods have them.
    """

    about: str
    settings: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    ranges: str = ""

    def __post_init__(self) -> None:
        for key, value in self.settings.items():
            described = isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], str)
            registry.require(described, f"SETTINGS has {key} = {value!r}, expected (default, description)")
        numbers = {key: value for key, (value, _) in self.settings.items() if isinstance(value, int | float)}
        for part in registry.conditions(self.ranges):
            kept = registry.named(part) <= set(numbers) and registry.holds(part, numbers)
            registry.require(kept, f"RANGES has {part}, expected what the numbers of SETTINGS keep")


@dataclass(frozen=True, kw_only=True)
class DataSet(Kind):
    """A data set.

    `images`: how many it has, by a formula in the resolution (side, pixels) where that changes it; None where it is not known
    before it is read. `groups`: those that a split keeps together, where that is not each image. `largest`: of the
    resolutions, None for any. `labels`: all its images have one. `lies_in`: what data.path names, a "folder" or an "archive"; a "font" of the
    system; "" where nothing outside the project is read. `needs`: the keys of `data` of which it needs one, and why.
    """

    images: int | str | None = None
    groups: int | str | None = None
    largest: int | None = None
    labels: bool = False
    lies_in: str = ""
    needs: tuple[tuple[tuple[str, ...], str], ...] = ()


DATA_SETS = declared(DataSet, "datasets/*.py", "DATA_SET", one=True)


@dataclass(frozen=True, kw_only=True)
class Layout(Kind):
    """How a folder or an archive is laid out.

    `mark`: the file whose folder is the data set's, "" where it has none, and what it `needs`, where that is missing. `largest`: of the
    resolutions, None for any. `captions`, `labels`: whether its images have captions, and can have labels. `images`: how many the
    published data set of this layout has, None where there is not one.
    """

    mark: str = ""
    needs: str = ""
    largest: int | None = None
    captions: bool = True
    labels: bool = True
    images: int | None = None


LAYOUTS = declared(Layout, "datasets/*.py", "LAYOUT", one=True)


@dataclass(frozen=True, kw_only=True)
class TeacherKind(Kind):
    """A kind of teacher.

    `loader`: the module of directcm.diffusion.teachers that reads its artefact. `latent`: it diffuses a VAE's latents of captioned
    images, else pixels of labelled ones. `learns`: making it is training, which asks for a GPU. `pinned`: it exists already, outside
    the project, and its module has `locate` and `content`. `unet`: the key of its block that is a U-Net on pixels. `network`: of one
    on pixels, the class of diffusers that it and its students are.
    """

    title: str
    loader: str
    processes: tuple[str, ...]
    latent: bool
    learns: bool
    pinned: bool = False
    unet: str = ""
    network: str = "UNet2DModel"


TEACHERS = declared(TeacherKind, "diffusion/teachers/*.py", "KIND", one=True)
