"""The verbs that sample students and teacher, and measure them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from directcm import config
from directcm.cli import options as o
from directcm.config.specs import EXTRACTORS, METHODS
from directcm.errors import UserError

Endpoints = Annotated[o.Artifact, o.artefact("endpoints")]
Features = Annotated[o.Artifact, o.artefact("features")]
Collection = Annotated[dict[str, o.Artifact], o.Option(read=str, opened=lambda path: _collection(path, "samples"))]


def _collection(path: str, kind: str) -> dict[str, o.Artifact]:
    from directcm.runtime.artifacts import open_collection

    return open_collection(path, kind)


def sample(
    *,
    settings: Annotated[config.Evaluation, o.block("evaluation")],
    ode: o.Ode,
    shard: o.Index = 0,
    shards: o.Natural = 1,
    student: Annotated[o.Student | None, "the student; without it the teacher is sampled"] = None,
    sets: Annotated[Sequence[o.Set], "student: optimiser step:sampling steps"] = (),
    teacher: o.Teacher,
    latents: o.Latents,
    noise: o.Noise,
    job: o.Long,
) -> None:
    """Sample teacher or student from the shared noise."""
    from directcm.evaluation import sampling

    what = sampling.Evaluated(settings, teacher, latents, noise, job.seed, job.device)
    if student is None:
        sampling.sample_teacher(what, ode.value, shard, shards, job.scratch, job.out)
    elif not sets:
        raise UserError("--sets is missing: what to sample of the student, as STEP:SAMPLING_STEPS …")
    else:
        sampling.sample_students(what, ode.value, student, sets, job.scratch, job.out)


def variants(
    *,
    settings: Annotated[config.Evaluation, o.block("evaluation")],
    ode: o.Ode,
    student: Annotated[o.Student, "the finished student"],
    sets: Annotated[Sequence[o.Variant], o.Option("what to make, by the sets' names", least=1)],
    relays: Annotated[Sequence[o.Student], "students that take the second of two steps"] = (),
    floor_noise: Annotated[o.Noise | None, "the noise that scalings are fitted on; --noise is held out"] = None,
    floor: Annotated[Sequence[o.Samples], "the teacher's samples of --floor-noise"] = (),
    teacher: o.Teacher,
    latents: o.Latents,
    noise: o.Noise,
    job: o.Long,
) -> None:
    """Sample a finished student from other start times, scaled, or by two students in turn."""
    from directcm.evaluation import sampling, variants

    what = sampling.Evaluated(settings, teacher, latents, noise, job.seed, job.device)
    fitted_on = None if floor_noise is None else variants.Floor(floor_noise, floor)
    variants.make(what, ode.value, student, sets, relays, fitted_on, job.scratch, job.out)


def untrained(
    *,
    settings: Annotated[config.Evaluation, o.block("evaluation")],
    ode: o.Ode,
    teacher: o.Teacher,
    latents: o.Latents,
    noise: o.Noise,
    job: o.Long,
) -> None:
    """Keep what a student before any training makes of the shared noise in one step."""
    from directcm.evaluation import sampling, untrained

    untrained.make(
        sampling.Evaluated(settings, teacher, latents, noise, job.seed, job.device), ode.value, job.scratch, job.out
    )


def search(
    *,
    settings: Annotated[config.Search, o.block("search")],
    statistics: Annotated[config.Statistics, "the block statistics of the configuration"],
    evaluation: Annotated[config.Evaluation, "the block evaluation of the configuration"],
    student: o.Student,
    teacher: o.Teacher,
    latents: o.Latents,
    noise: o.Noise,
    search_noise: Annotated[o.Noise, "the noise that times are chosen on; --noise is held out"],
    reference: Annotated[Features, "features of the data, or of the teacher's samples"],
    extractor: o.Extractor | None = None,
    job: o.Long,
) -> None:
    """Find a student's sampling times by a greedy ternary search."""
    from directcm.evaluation import search

    what = (settings, statistics, evaluation, student, teacher, latents, noise, search_noise, reference, extractor)
    search.make(*what, job.seed, job.device, job.scratch, job.out)


def error_by_time(
    *,
    settings: Annotated[config.Errors, o.block("errors")],
    batch_size: o.Natural,
    precision: o.Precision = "no",
    student: o.Student,
    teacher: o.Teacher,
    latents: o.Latents,
    endpoints: Annotated[Sequence[Endpoints], o.Option("shards of the student's own ODE", least=1)],
    refined: Annotated[Sequence[Endpoints], o.Option("shards of the refined ODE", least=1)],
    job: o.Torch,
) -> None:
    """Measure a student's ODE error by start time, in latents and pixels."""
    from directcm.evaluation import error_by_time

    error_by_time.make(
        settings, batch_size, precision, student, teacher, latents, endpoints, refined, job.seed, job.device, job.out
    )


def edit(
    *,
    settings: Annotated[config.Editing, o.block("editing")],
    ode: o.Ode,
    batch_size: Annotated[o.Natural, "rows of one evaluation"],
    precision: o.Precision = "no",
    teacher: o.Teacher,
    latents: o.Latents,
    student: Annotated[o.Student | None, "the student; without it the teacher's solved ODE takes its place"] = None,
    reference: Annotated[o.Artifact | None, o.artefact("edits", "student: the teacher's edits under its ODE")] = None,
    job: o.Torch,
) -> None:
    """Edit held-out images without training: inpainting, colourisation, super-resolution …"""
    from directcm.evaluation import editing

    editing.make(
        settings, ode.value, batch_size, precision, teacher, latents, student, reference, job.seed, job.device, job.out
    )


def convergence(*, settings: Annotated[config.Convergence, o.block("convergence")], job: o.Torch) -> None:
    """Measure what theory predicts as N grows, on exact teachers of its own."""
    from directcm.evaluation import convergence

    convergence.make(settings, job.seed, job.out)


def fixed_points(*, settings: Annotated[config.FixedPoints, o.block("fixed_points")], job: o.Torch) -> None:
    """Compute what CM, Direct CM and the targets between them converge to, in closed form, on exact teachers of its own."""
    from directcm.evaluation import fixed_points

    fixed_points.make(settings, job.seed, job.out)


def extractor(
    *,
    name: Literal["clip_tiny"],
    settings: Annotated[config.ClipTiny, o.block("extractors.<name>")],
    data: o.Data,
    job: o.Work,
) -> None:
    """Train the small CLIP and its quality head."""
    from directcm.evaluation.metrics import clip_tiny

    result = clip_tiny.make_extractor(name, data, settings, job.seed, job.out, job.device)
    print(f"held-out zero-shot accuracy {result['held_out_zero_shot_accuracy']:.3f}", file=sys.stderr)


def features(
    *,
    name: Annotated[Sequence[str], o.Option("one or several", choices=tuple(EXTRACTORS), least=1)],
    extractor: Annotated[Sequence[o.Extractor], "those of them that are trained here"] = (),
    samples: Annotated[Sequence[o.Samples], "the samples' shards; without them the data reference"] = (),
    collection: Annotated[Collection | None, "instead of --samples: a student's collection of samples"] = None,
    data: o.Data,
    noise: o.Noise,
    batch_size: o.Natural = 64,
    threads: Annotated[o.Threads, "CPU threads, which decode images while a GPU computes"] = 1,
    job: o.Jobs,
) -> None:
    """Extract features of samples, or of the data reference, by several extractors in one pass over the images."""
    import torch

    from directcm.evaluation.metrics import features
    from directcm.evaluation.metrics.extractors import build_extractors

    if len(job.out) != len(name):
        raise UserError(
            f"--out names {len(job.out)} folders for {len(name)} extractors ({', '.join(name)}); "
            "give one for each of --name, in that order"
        )
    torch.set_num_threads(threads)
    built = build_extractors(name, extractor, device=job.device)
    if collection is not None:
        features.features_collection(built, collection, data, noise, batch_size, job.out)
    else:
        features.features(built, samples or None, data, noise, batch_size, job.out)


def baselines(
    *,
    settings: Annotated[config.Evaluation, o.block("evaluation")],
    statistics: Annotated[config.Statistics, "the block statistics of the configuration"],
    metrics: Annotated[Sequence[o.Metric], o.Option("of final latents alone", least=1, metavar="METRIC")],
    ode: o.Ode,
    data: o.Data,
    teacher: o.Teacher,
    latents: o.Latents,
    noise: o.Noise,
    floor_noise: Annotated[o.Noise, "the noise that is fitted on; --noise is held out"],
    reference: Annotated[Sequence[o.Samples], o.Option("the teacher's samples of --noise", least=1)],
    floor: Annotated[Sequence[o.Samples], o.Option("the teacher's samples of --floor-noise", least=1)],
    job: o.Torch,
) -> None:
    """Measure what a student has to beat: conditional mean, affine map, untrained start, one guided step."""
    from directcm.evaluation import baselines

    baselines.make(
        settings, statistics, metrics, ode.value, data, teacher, latents, noise, floor_noise, reference, floor, job.seed,
        job.device, job.out,
    )  # fmt: skip


ROWS = ("Teacher", "Teacher, other noise", *METHODS.values())


@dataclass(frozen=True, kw_only=True)
class Whose:
    """Whose numbers are computed."""

    row: Annotated[
        str | None, o.Option("whose numbers these are; default: the method of --run", choices=ROWS, filled=o.QUOTED)
    ] = None
    run: Annotated[o.Json, "the run's axes, recorded"]

    def __post_init__(self) -> None:
        method = self.run.get("method") if isinstance(self.run, dict) else None
        if self.row is None and str(method) not in METHODS:
            raise UserError("evaluate: --row is missing, and --run names no method to take it from")

    @property
    def label(self) -> str:
        return self.row or METHODS[self.run["method"]]


def evaluate(
    *,
    settings: Annotated[config.Statistics, o.block("statistics")],
    metrics: Annotated[Sequence[o.Metric], o.Option(least=1, metavar="METRIC")],
    whose: Whose,
    steps: Annotated[o.Natural, "sampling steps: the teacher's N; a collection knows its own"] = 1,
    data: o.Data,
    noise: o.Noise,
    samples: Annotated[Sequence[o.Samples], o.Option("the samples' shards", least=1)] = (),
    collection: Annotated[
        Collection | None,
        o.Option("a student's collection of samples; --features are collections then", instead="samples"),
    ] = None,
    features: Annotated[Sequence[str], o.Option("their features", filled="input.NAME")] = (),
    data_features: Annotated[Sequence[Features], "the data's features"] = (),
    reference_noise: Annotated[o.Noise | None, "the reference's noise where it is another than the samples'"] = None,
    reference: Annotated[Sequence[o.Samples], "the teacher's samples under the student's own ODE"] = (),
    reference_features: Annotated[Sequence[Features], "their features"] = (),
    other_noise: Annotated[o.Noise | None, "a noise that is not the samples', for distances to it"] = None,
    other: Annotated[Sequence[o.Samples], "the teacher's samples of it"] = (),
    other_features: Annotated[Sequence[Features], "their features"] = (),
    job: o.Seeded,
) -> None:
    """Compute the metrics of one set of samples."""
    from directcm.evaluation.metrics import evaluate
    from directcm.runtime.artifacts import open_artifact

    def by_name(found: Sequence[o.Artifact]) -> dict[str, o.Artifact]:
        return {f.settings["extractor"]: f for f in found}

    kind = config.Run if whose.label in METHODS.values() else config.Ode
    compared = evaluate.Comparison(
        metrics=metrics,
        row=whose.label,
        run=kind.of(whose.run, "--run"),
        statistics=settings,
        seed=job.seed,
        data=data,
        noise=noise,
        data_features=by_name(data_features),
        reference=reference,
        reference_features=by_name(reference_features),
        reference_noise=reference_noise,
        other=other,
        other_features=by_name(other_features),
        other_noise=other_noise,
    )
    if collection is not None:
        parts = [_collection(path, "features") for path in features]
        named = {next(iter(found.values())).settings["extractor"]: found for found in parts}
        evaluate.evaluate_collection(compared, collection, named, job.out)
    else:
        opened = by_name([open_artifact(path, "features") for path in features])
        evaluate.evaluate(compared, samples, opened, job.out, steps=steps)
