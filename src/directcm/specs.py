"""What each metric, extractor, distance and kind of teacher is, as their modules declare it in plain values: read, never imported.

So planning, help and the configuration know them without torch, and a verb depends on the modules that it runs alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from directcm import registry

PACKAGE = Path(__file__).resolve().parent
Spec = TypeVar("Spec")


def declared(kind: Callable[..., Spec], where: str, name: str, shared: str = "") -> dict[str, Spec]:
    """What the modules below `where` declare under a name (and for all of a module under `shared`), by rank, then by name.

    Raises ValueError where something is missing, unknown or declared twice.
    """
    found: dict[str, Any] = {}
    for path in sorted((PACKAGE / where).glob("*.py")):
        text = path.read_text(encoding="utf-8")
        # Most of the time goes into reading syntax.
        if f"\n{name} = " not in text:
            continue
        values = registry.literals(text)
        if name not in values:
            raise ValueError(f"{path} declares {name} by something that is not a plain value")
        for key, own in values[name].items():
            if key in found:
                raise ValueError(f"{path} declares {key}, as another module does")
            try:
                found[key] = kind(name=key, module=path.stem, **{**values.get(shared, {}), **own})
            except TypeError as error:
                raise ValueError(f"{path} declares no {key} as {name} are: {error}") from None
    return dict(sorted(found.items(), key=lambda item: (item[1].rank, item[0])))


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """A feature extractor. `weights` names files of the weights cache; none where it is trained here. `made_by`: its class."""

    name: str
    module: str
    made_by: str
    arrays: tuple[str, ...]
    weights: tuple[str, ...] = ()
    rank: int = 100


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric. A metric on a stand-in network bears its own name (fd_tiny), never the real one's (fid).

    `better`: "lower" or "higher". `takes`, `function`, `part`: see directcm.metrics. `test`: its permutation test in
    analysis.inference ("frechet", "kid", "cmmd"), which the search of sampling times uses too; a distance without one is judged by
    seeds alone. `same_noise`: it compares samples of one noise row by row. `rank`: its place among the metrics.
    `paper`: row → the number the paper reports (2411.08954, main comparison, one step) for its own metric of this kind, `paper_name`.
    `headline`: it stands in Table 1, else in the table of all metrics only. `stand_in_for`: the metric on a published
    network whose place a *-tiny metric takes where that network is not at hand; "" where there is none. `least`: images on either
    side below which it is not defined.
    """

    name: str
    module: str
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
    paper_name: str = ""
    paper: Mapping[str, float] = field(default_factory=dict)
    same_scale_as_paper: bool = False
    headline: bool = False
    stand_in_for: str = ""
    least: int = 2
    rank: int = 100

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher"):
            raise TypeError(f"better is {self.better!r}, expected lower or higher")
        if not self.references or not set(self.references) <= {"teacher", "data", "prompt", "none"}:
            raise TypeError(f"references are {self.references!r}, expected some of teacher, data, prompt, none")
        if self.extractor is not None and self.extractor not in EXTRACTORS:
            raise TypeError(f"extractor is {self.extractor!r}, expected one of {', '.join(EXTRACTORS)}")
        arrays = EXTRACTORS[self.extractor].arrays if self.extractor else ()
        known = {*TAKEN, *arrays, "reference.latents", "reference.rows", *(f"reference.{name}" for name in arrays)}
        if not set(self.takes) <= known:
            raise TypeError(f"takes is {self.takes!r}, expected some of {', '.join(sorted(known))}")

    @property
    def needs_labels(self) -> bool:
        """Whether it is defined for data with labels only."""
        return "labels" in self.takes


# What metrics take beside the arrays of their extractor.
TAKEN = ("latents", "rows", "images", "labels", "data", "seed")
EXTRACTORS = declared(Extractor, "metrics", "EXTRACTORS")
METRICS = declared(Metric, "metrics", "METRICS", "SHARED")

METHODS = {name: method.label for name, method in registry.methods().items()}
SOLVERS = {"ddim": "DDIM", "euler": "Euler", "heun": "Heun", "edm_heun": "Heun (EDM)"}


@dataclass(frozen=True)
class Distance:
    """What a student's loss compares by. `weights` names files of the weights cache; `images`: it compares RGB images alone."""

    name: str
    title: str
    weights: tuple[str, ...] = ()
    images: bool = False


DISTANCES = {
    d.name: d
    for d in (
        Distance("mse", "MSE"),
        Distance("pseudo_huber", "pseudo-Huber"),
        Distance("l1", "ℓ1"),
        Distance("lpips", "LPIPS", ("vgg16-397923af.pth",), images=True),
    )
}


@dataclass(frozen=True)
class TeacherKind:
    """A kind of teacher.

    `loader`: the module of directcm.teachers that reads its artefact. `latent`: it diffuses a VAE's latents of captioned
    images, else pixels of labelled ones. `learns`: making it is training, which asks for a GPU.
    """

    name: str
    title: str
    loader: str
    processes: tuple[str, ...]
    latent: bool
    learns: bool


TEACHERS = {
    k.name: k
    for k in (
        TeacherKind("micro_sdxl", "small SDXL trained here", "latent_diffusion", ("vp",), latent=True, learns=True),
        TeacherKind(
            "diffusers", "an existing SDXL-type pipeline", "latent_diffusion", ("vp",), latent=True, learns=False
        ),
        TeacherKind(
            "edm", "small EDM on pixels trained here", "pixel_diffusion", ("karras",), latent=False, learns=True
        ),
        TeacherKind(
            "mixture", "the exact score of the training images", "mixture", ("vp", "karras"), latent=False, learns=False
        ),
    )
}
