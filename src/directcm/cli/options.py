"""What the verbs' parameters are made of: numbers with a floor, artefacts, blocks of the configuration, and what every job has."""

from __future__ import annotations

import json
import re
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from directcm import config
from directcm.cli.declare import QUOTED, Option
from directcm.config import SETTING_AXES
from directcm.config.specs import METHODS, METRICS, SOLVERS
from directcm.errors import UserError

if TYPE_CHECKING:
    from directcm.runtime.artifacts import Artifact
else:
    # Its module is imported when one is opened.
    Artifact = Any


def number(kind: Callable[[str], Any], low: float) -> Option:
    """A number that is not below `low`, nor NaN."""

    def read(text: str) -> Any:
        value = kind(text)
        if not value >= low:
            raise ArgumentTypeError(f"{text} is below {low}")
        return value

    # argparse names it where the text is no such number.
    read.__name__ = kind.__name__
    return Option(read=read)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ArgumentTypeError(f"not valid JSON ({error})") from None


def _words(
    form: str, pattern: str, good: Callable[..., bool] = lambda *_: True, kind: Callable[[str], Any] = str, **how: Any
) -> Option:
    """Several values in one word, such as NAME=FOLDER: the groups of a pattern, if they are good. `form`: what an error says is right."""

    def read(text: str) -> tuple[Any, ...]:
        found = re.fullmatch(pattern, text, re.DOTALL)
        if found is None or not good(*found.groups()):
            raise ArgumentTypeError(f"{text!r} is not {form}")
        return tuple(kind(part) for part in found.groups())

    return Option(read=read, **{"metavar": form.partition(",")[0], **how})


def _result(text: str) -> Path:
    """Where a result goes; rules name an artefact by its manifest."""
    path = Path(text)
    return path.parent if path.name == "manifest.json" else path


def artefact(kind: str, text: str = "") -> Option:
    """The folder of an artefact, or its manifest; the verb gets it opened."""

    def opened(path: str) -> Artifact:
        from directcm.runtime.artifacts import open_artifact

        return open_artifact(path, kind)

    return Option(text or f"the {kind} artefact", read=str, opened=opened, filled="input.NAME")


def block(name: str) -> str:
    """The help of a verb's --settings."""
    return f"the block {name} of the configuration, as JSON or a file"


def tidy(name: str) -> Option:
    """The help of a tidy table's flag."""
    return Option(f"the tidy table {name}.csv", metavar="CSV", filled="input.NAME")


def runs_of(grid: config.Config, scope: str) -> list[config.Run]:
    """The runs that are made: those of the main comparison, or the whole grid."""
    return grid.grid() if scope in ("paper", "why") else tabled(grid, scope)


def tabled(grid: config.Config, scope: str) -> list[config.Run]:
    """The runs of tidy tables: of the main comparison, of the default teacher's grid ("paper"), or those over teachers."""
    from directcm.analysis.data.selection import main_runs

    return {"main": main_runs, "paper": config.Config.runs, "teachers": config.Config.over_teachers}[scope](grid)


def redrawn(seed: int, teacher_seed: int) -> int:
    """The seed of what a teacher is trained with, and of its start points: the run's own, or another for each `teacher_seed`."""
    from directcm.runtime import rng

    return int(rng.generator(seed, "teacher_seed", teacher_seed).integers(2**31)) if teacher_seed else seed


def _density(text: str) -> str | float:
    if text == config.VARIED["density"]:
        return text
    share = float(text)
    if not 0 < share < 1:
        raise ArgumentTypeError(f"{text} is neither uniform nor between 0 and 1")
    return share


def counted(name: str, unit: str) -> Callable[[int, int], None]:
    """A progress bar that is told how many are done, and of how many."""
    from directcm.runtime.progress import Progress

    progress = Progress(name, 0, unit)

    def show(done: int, total: int) -> None:
        progress.total = total
        progress.update(done - progress.done)

    return show


Natural = Annotated[int, number(int, 1)]
Index = Annotated[int, number(int, 0)]
Scale = Annotated[float, number(float, 0)]
Json = Annotated[Any, Option(read=_json, metavar="JSON", filled=QUOTED)]
Placed = Annotated[tuple[str, str], _words("NAME=FOLDER", "(.+?)=(.+)", metavar="ROW=FOLDER", filled=QUOTED)]
Extracted = Annotated[tuple[str, str], _words("NAME=FOLDER", "(.+?)=(.+)", metavar="EXTRACTOR=FOLDER")]
Set = Annotated[tuple[int, int], _words("STEP:STEPS, e.g. 250:1", "0*([1-9][0-9]*):0*([1-9][0-9]*)", kind=int)]
Methods = Annotated[
    tuple[str, str],
    _words(f"METHOD:METHOD, of {', '.join(METHODS)}", "(.+?):(.+)", lambda *both: METHODS.keys() >= {*both}),
]
Claimed = Annotated[
    tuple[str, str],
    _words(
        "METRIC:REFERENCE, such as fd_tiny:data",
        "(.+?):(.+)",
        lambda metric, reference: metric in METRICS and reference in METRICS[metric].references,
    ),
]
Across = Annotated[
    tuple[str, str, str],
    _words(
        f"METHOD:AXIS~VALUE, the axis one of {', '.join(SETTING_AXES)}",
        "(.+?):(.+?)~(.+)",
        lambda method, axis, _: method in METHODS and axis in SETTING_AXES,
    ),
]


def _contrast(text: str) -> Any:
    """A contrast as `directcm.analysis.data.contrasts` spells it."""
    from directcm.analysis.data.contrasts import Contrast

    try:
        return Contrast.parse(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not METHOD:METHOD:log~AXIS:METRIC:REFERENCE or the like") from None


def _variant(text: str) -> config.Variant:
    """A set of samples that is not plain, by its name."""
    try:
        return config.Variant.parse(text)
    except UserError as error:
        raise ArgumentTypeError(str(error)) from None


Variant = Annotated[config.Variant, Option(read=_variant, metavar="SET")]
Contrasts = Annotated[Any, Option(read=_contrast, metavar="METHOD:METHOD:HOW~AXIS:METRIC:REFERENCE")]
Method = Annotated[str, Option(choices=tuple(METHODS))]
Metric = Annotated[str, Option(choices=tuple(METRICS))]
Threads = Annotated[Natural, Option("CPU threads", filled="threads")]
Precision = Literal["no", "fp16", "bf16"]
Switch = Literal["auto", "on", "off"]
TeacherSeed = Annotated[Index, "0: what --seed draws; each other draws the teacher and its start points again"]
Density = Annotated[
    Any,
    Option("start times: uniform, or their share in the noisiest tenth of the grid", read=lambda text: _density(text)),
]
Scope = Annotated[Literal["main", "paper"], "the main comparison, or the whole grid"]
Made = Annotated[
    Literal["main", "paper", "why"], "the main comparison, the whole grid, or that with the experiments on why"
]
Results = Annotated[Path, "the results folder of the configuration's preset"]
Data = Annotated[Artifact, artefact("data")]
Teacher = Annotated[Artifact, artefact("teacher")]
Latents = Annotated[Artifact, artefact("latents")]
Noise = Annotated[Artifact, artefact("noise")]
Student = Annotated[Artifact, artefact("student")]
Extractor = Annotated[Artifact, artefact("extractor", "the trained extractor, where it is trained here")]
Samples = Annotated[Artifact, artefact("samples")]


@dataclass(frozen=True, kw_only=True)
class Ode:
    """The ODE that is solved."""

    solver: Annotated[str, Option(choices=tuple(SOLVERS))]
    N: Annotated[Natural, "intervals"]
    w: Annotated[Scale, "guidance scale, 1 is unguided"]

    @property
    def value(self) -> config.Ode:
        return config.Ode(solver=self.solver, N=self.N, w=self.w)


class _Device:
    """What a job computes on."""

    @property
    def device(self) -> str:
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True, kw_only=True)
class Job(_Device):
    """What every job has. Its log is for `main` to write, so that a mistake stands in it too."""

    out: Annotated[Path, Option("where the result goes: its folder, or a file", read=_result, filled="output")]


@dataclass(frozen=True, kw_only=True)
class Jobs(_Device):
    """A job with a result for each of the things that it is asked for."""

    out: Annotated[
        Sequence[Path],
        Option("where the results go, one for each --name, in that order", read=_result, filled="output", least=1),
    ]


@dataclass(frozen=True, kw_only=True)
class Seeded(Job):
    """A job that draws numbers."""

    seed: Annotated[Index, "the run's seed"]


@dataclass(frozen=True, kw_only=True)
class Work(Seeded):
    """A job on some CPU threads."""

    threads: Threads = 1


@dataclass(frozen=True, kw_only=True)
class Torch(Work):
    """A job that computes with torch, on as many CPU threads as the rule asked for."""

    compile: Annotated[Switch, "compile the blocks that a network repeats; auto: on a GPU"] = "auto"
    deterministic: Annotated[Switch, "the same bytes every time; auto: on a CPU, a GPU's are a tenth slower for it"] = (
        "auto"
    )

    def __post_init__(self) -> None:
        import warnings

        from directcm.runtime import compiled, rng

        warnings.filterwarnings("ignore", message=".*cuda.*", category=UserWarning)
        rng.deterministic(self.threads, self.deterministic, self.device)
        compiled.enable(self.compile, self.device)


@dataclass(frozen=True, kw_only=True)
class Long(Torch):
    """Work that goes on where it was interrupted."""

    scratch: Annotated[Path, "where unfinished work is kept"]
