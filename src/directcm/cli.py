"""The command line: one verb per rule. Parse, call, report errors; no logic."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from directcm import environment, stop
from directcm.config import (
    ADAPTER,
    SETTING_AXES,
    ClipTiny,
    Config,
    Convergence,
    Data,
    Diffusers,
    Editing,
    Edm,
    Encode,
    Errors,
    Evaluation,
    MicroSdxl,
    Mixture,
    Process,
    Search,
    Statistics,
    Targets,
    Train,
    settings_argument,
)
from directcm.errors import UserError
from directcm.registry import COUPLINGS, FIRST, methods
from directcm.specs import DISTANCES, EXTRACTORS, METHODS, METRICS, SOLVERS, TEACHERS


class _Tee:
    """Standard error that is written to a log as well."""

    def __init__(self, *streams: IO[str]) -> None:
        self.streams = streams

    def write(self, text: str) -> int:
        for stream in self.streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self.streams:
            stream.flush()

    def isatty(self) -> bool:
        return False


def _artifacts(paths: Sequence[str] | None, kind: str) -> list[Any]:
    from directcm.artifacts import open_artifact

    return [open_artifact(path, kind) for path in paths or []]


def _artifact(path: str, kind: str) -> Any:
    return _artifacts([path], kind)[0]


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _threads(count: int) -> None:
    """As many CPU threads as the rule asked for, and the same bytes every time."""
    import warnings

    from directcm import rng

    warnings.filterwarnings("ignore", message=".*cuda.*", category=UserWarning)
    rng.deterministic(count)


def _data(a: argparse.Namespace) -> None:
    from directcm import datasets

    datasets.make(settings_argument(Data, a.settings), a.seed, a.out, a.least, a.classes)


def _teacher(a: argparse.Namespace) -> None:
    _threads(a.threads)
    process = settings_argument(Process, a.process)
    if a.kind == "micro_sdxl":
        from directcm.teachers import micro_sdxl

        micro_sdxl.make(
            settings_argument(MicroSdxl, a.settings), process, _artifact(a.data, "data"), a.seed, a.scratch, a.out
        )
    elif a.kind == "edm":
        from directcm.teachers import edm

        edm.make(settings_argument(Edm, a.settings), process, _artifact(a.data, "data"), a.seed, a.scratch, a.out)
    elif a.kind == "mixture":
        from directcm.teachers import mixture

        mixture.make(settings_argument(Mixture, a.settings), process, _artifact(a.data, "data"), a.seed, a.out)
    else:
        from directcm.teachers import diffusers

        resolution = _artifact(a.data, "data").json("data.json")["resolution"]
        diffusers.make(settings_argument(Diffusers, a.settings), process, resolution, a.out)


def _encode(a: argparse.Namespace) -> None:
    _threads(a.threads)
    from directcm import encode

    encode.make(
        settings_argument(Encode, a.settings),
        _artifact(a.teacher, "teacher"),
        _artifact(a.data, "data"),
        a.seed,
        _device(),
        a.precision,
        a.scratch,
        a.out,
    )


def _noise(a: argparse.Namespace) -> None:
    from directcm import noise

    noise.make(a.samples, a.purpose, _artifact(a.data, "data"), _artifact(a.latents, "latents"), a.seed, a.out)


def _targets(a: argparse.Namespace) -> None:
    _threads(a.threads)
    from directcm import targets

    targets.make(
        settings_argument(Targets, a.settings),
        a.solver,
        a.N,
        a.w,
        a.shard,
        _artifact(a.teacher, "teacher"),
        _artifact(a.latents, "latents"),
        a.seed,
        _device(),
        a.precision,
        a.scratch,
        a.out,
        a.coupling,
    )


def _endpoints(a: argparse.Namespace) -> None:
    _threads(a.threads)
    from directcm import endpoints

    endpoints.make(
        settings_argument(Errors, a.settings),
        a.solver,
        a.N,
        a.w,
        a.shard,
        a.batch_size,
        _artifact(a.teacher, "teacher"),
        _artifact(a.latents, "latents"),
        a.seed,
        _device(),
        a.precision,
        a.scratch,
        a.out,
    )


def _trajectories(a: argparse.Namespace) -> None:
    _threads(a.threads)
    from directcm import trajectories

    trajectories.make(
        a.count,
        a.solver,
        a.N,
        a.w,
        _artifact(a.teacher, "teacher"),
        _artifact(a.latents, "latents"),
        a.seed,
        _device(),
        a.precision,
        a.out,
    )


def _train(a: argparse.Namespace) -> None:
    _threads(a.threads)
    from directcm import training

    names = ("method", "solver", "N", "w", "adapter", "loss", "lr", "batch_size", "pool", "steps")
    training.make(
        {**{k: getattr(a, k) for k in names}, "seed": a.training_seed},
        settings_argument(Train, a.settings),
        a.snapshots or [],
        _artifact(a.teacher, "teacher"),
        _artifact(a.latents, "latents"),
        _artifacts(a.targets, "targets"),
        a.seed,
        a.scratch,
        a.tensorboard,
        a.out,
        _own(a.own, a.method),
    )


def _methods(text: str) -> tuple[str, str]:
    """Two methods."""
    first, _, second = text.partition(":")
    if first not in METHODS or second not in METHODS:
        raise argparse.ArgumentTypeError(f"{text}: expected METHOD:METHOD of {', '.join(METHODS)}")
    return first, second


def _claimed(text: str) -> tuple[str, str]:
    """A metric and one of its references."""
    metric, _, reference = text.partition(":")
    if metric not in METRICS or reference not in METRICS[metric].references:
        raise argparse.ArgumentTypeError(f"{text}: expected METRIC:REFERENCE, such as fd_tiny:data")
    return metric, reference


def _across(text: str) -> tuple[str, str, str]:
    """A method, an axis and a value of it."""
    method, _, rest = text.partition(":")
    axis, _, value = rest.partition("~")
    if method not in METHODS or axis not in SETTING_AXES or not value:
        raise argparse.ArgumentTypeError(
            f"{text}: expected METHOD:AXIS~VALUE, the axis one of {', '.join(SETTING_AXES)}"
        )
    return method, axis, value


def _own(text: str | None, method: str) -> dict[str, float]:
    """A method's own numbers as JSON."""
    try:
        found = json.loads(text or "{}")
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or any(
        not isinstance(v, int | float) or isinstance(v, bool) for v in found.values()
    ):
        raise UserError(f"--own is {text}, expected a JSON object of numbers, such as '{{\"mu\": 0.9}}'")
    if wrong := methods()[method].refused(found):
        raise UserError(f"--own: {wrong}")
    return found


def _sample(a: argparse.Namespace) -> None:
    _threads(a.threads)
    from directcm import sampling

    what = sampling.Evaluated(
        settings_argument(Evaluation, a.settings),
        _artifact(a.teacher, "teacher"),
        _artifact(a.latents, "latents"),
        _artifact(a.noise, "noise"),
        a.seed,
        _device(),
    )
    ode = {"solver": a.solver, "N": a.N, "w": a.w}
    if a.student is None:
        sampling.sample_teacher(what, ode, a.shard, a.shards, a.scratch, a.out)
    elif not a.sets:
        raise UserError("--sets is missing: what to sample of the student, as STEP:SAMPLING_STEPS …")
    else:
        sampling.sample_students(what, ode, _artifact(a.student, "student"), a.sets, a.scratch, a.out)


def _search(a: argparse.Namespace) -> None:
    _threads(a.threads)
    from directcm import search

    search.make(
        settings_argument(Search, a.settings),
        settings_argument(Statistics, a.statistics),
        settings_argument(Evaluation, a.evaluation),
        _artifact(a.student, "student"),
        _artifact(a.teacher, "teacher"),
        _artifact(a.latents, "latents"),
        _artifact(a.noise, "noise"),
        _artifact(a.search_noise, "noise"),
        _artifact(a.reference, "features"),
        _artifact(a.extractor, "extractor") if a.extractor else None,
        a.seed,
        _device(),
        a.scratch,
        a.out,
    )


def _error_by_time(a: argparse.Namespace) -> None:
    _threads(a.threads)
    from directcm import error_by_time

    error_by_time.make(
        settings_argument(Errors, a.settings),
        a.batch_size,
        a.precision,
        _artifact(a.student, "student"),
        _artifact(a.teacher, "teacher"),
        _artifact(a.latents, "latents"),
        _artifacts(a.endpoints, "endpoints"),
        _artifacts(a.refined, "endpoints"),
        a.seed,
        _device(),
        a.out,
    )


def _edit(a: argparse.Namespace) -> None:
    _threads(a.threads)
    from directcm import editing

    editing.make(
        settings_argument(Editing, a.settings),
        a.solver,
        a.N,
        a.w,
        a.batch_size,
        a.precision,
        _artifact(a.teacher, "teacher"),
        _artifact(a.latents, "latents"),
        _artifact(a.student, "student") if a.student else None,
        _artifact(a.reference, "edits") if a.reference else None,
        a.seed,
        _device(),
        a.out,
    )


def _convergence(a: argparse.Namespace) -> None:
    _threads(a.threads)
    from directcm import convergence

    convergence.make(settings_argument(Convergence, a.settings), a.seed, a.out)


def _extractor(a: argparse.Namespace) -> None:
    _threads(a.threads)
    from directcm.metrics import clip_tiny
    from directcm.progress import Progress

    settings = settings_argument(ClipTiny, a.settings)
    progress = Progress(f"extractor: {a.name}", settings.steps)
    result = clip_tiny.make_extractor(
        a.name,
        _artifact(a.data, "data"),
        settings,
        a.seed,
        a.out,
        lambda step, steps, loss: progress.update(1, f"loss {loss:.3g}"),
        _device(),
    )
    print(f"held-out zero-shot accuracy {result['held_out_zero_shot_accuracy']:.3f}", file=sys.stderr)


def _features(a: argparse.Namespace) -> None:
    _threads(a.threads)
    from directcm.artifacts import open_collection
    from directcm.metrics import features
    from directcm.progress import Progress

    progress = Progress(f"features: {a.name}", 0, "image")

    def show(done: int, total: int) -> None:
        progress.total = total
        progress.update(done - progress.done)

    rest: tuple[Any, ...] = (
        _artifact(a.data, "data"),
        _artifact(a.noise, "noise"),
        _artifact(a.extractor, "extractor") if a.extractor else None,
        a.batch_size,
        a.out,
    )
    if a.collection is not None:
        parts = open_collection(a.collection, "samples")
        features.features_collection(a.name, parts, *rest, device=_device(), progress=show)
    else:
        samples = _artifacts(a.samples, "samples") or None
        features.features(a.name, samples, *rest, device=_device(), progress=show)


def _evaluate(a: argparse.Namespace) -> None:
    from directcm.artifacts import open_collection
    from directcm.metrics import evaluate

    def by_name(paths: Sequence[str] | None) -> dict[str, Any]:
        return {f.settings["extractor"]: f for f in _artifacts(paths, "features")}

    row = a.row or METHODS.get(str(a.run.get("method") if isinstance(a.run, dict) else None))
    if row is None:
        raise UserError("evaluate: --row is missing, and --run names no method to take it from")
    data, noise = _artifact(a.data, "data"), _artifact(a.noise, "noise")
    reference = _artifacts(a.reference, "samples") or None
    common: dict[str, Any] = {
        "metrics": a.metrics,
        "row": row,
        "run": a.run,
        "statistics": settings_argument(Statistics, a.settings),
        "seed": a.seed,
        "out": a.out,
    }
    if a.collection is not None:
        parts: dict[str, dict[str, Any]] = {}
        for path in a.features or []:
            found = open_collection(path, "features")
            parts[next(iter(found.values())).settings["extractor"]] = found
        evaluate.evaluate_collection(
            open_collection(a.collection, "samples"),
            parts,
            data,
            noise,
            by_name(a.data_features),
            reference or [],
            by_name(a.reference_features),
            **common,
        )
        return
    evaluate.evaluate(
        _artifacts(a.samples, "samples"),
        by_name(a.features),
        data,
        noise,
        by_name(a.data_features),
        reference,
        by_name(a.reference_features) or None,
        steps=a.steps,
        reference_noise=_artifact(a.reference_noise, "noise") if a.reference_noise else None,
        **common,
    )


def _table(a: argparse.Namespace) -> None:
    config = settings_argument(Config, a.settings)
    if a.name == "table_search":
        from directcm.analysis.tables.table_search import table_search

        table_search(_artifacts(a.searches, "search"), config, a.out)
        return
    from directcm.analysis.tables.index import table

    for name in ("metrics", "comparisons"):
        if getattr(a, name) is None:
            raise UserError(f"table {a.name}: --{name} is missing")
    table(a.name, a.metrics, a.comparisons, config, a.out, a.students_table)


def _compare(a: argparse.Namespace) -> None:
    from directcm.analysis import compare
    from directcm.progress import Progress

    features: dict[str, list[str]] = {}
    for name, path in a.features:
        features.setdefault(name, []).append(path)
    progress = Progress("compare", 0, "test")

    def show(done: int, total: int) -> None:
        progress.total = total
        progress.update(done - progress.done)

    compare.compare(
        a.setting,
        a.metrics,
        features,
        dict(a.teacher),
        dict(a.data),
        settings_argument(Statistics, a.settings),
        a.seed,
        a.out,
        pairs=a.pairs,
        stepwise=a.stepwise,
        along=a.along,
        others=a.others,
        claimed=a.claimed,
        beyond=a.beyond,
        threads=a.threads,
        progress=show,
    )


def _collect(a: argparse.Namespace) -> None:
    from directcm import paths
    from directcm.analysis import collect

    config = settings_argument(Config, a.settings)
    wanted = paths.measured(config, _scope(config, a.scope), a.scope)
    collect.collect(**{name: [a.results / path for path in found] for name, found in wanted.items()}, out=a.out)


def _scope(config: Config, scope: str) -> list[dict[str, Any]]:
    """The runs of the main comparison, or of the whole grid."""
    from directcm.analysis.selection import main_runs

    return main_runs(config) if scope == "main" else config.runs()


def _figure(a: argparse.Namespace) -> None:
    from importlib import import_module

    draw = import_module(f"directcm.analysis.figure_{a.name}").draw
    out = (a.out, a.out.with_suffix(".png"), a.out.with_suffix(".csv"))

    def given(*names: str) -> list[Any]:
        lacking = [name for name in names if getattr(a, name) is None]
        if lacking:
            raise UserError(f"figure {a.name}: --{lacking[0].replace('_', '-')} is missing")
        return [getattr(a, name) for name in names]

    if a.name == "supervision":
        draw(_artifact(given("trajectories")[0], "trajectories"), *out)
    elif a.name == "convergence":
        draw(_artifact(given("convergence")[0], "convergence"), *out)
    elif a.name == "samples":
        noise, samples = given("noise", "samples")
        draw(_artifact(noise, "noise"), _samples_of(samples), a.columns, *out)
    elif a.name == "editing":
        draw({row: _artifact(path, "edits") for row, path in given("edits")[0]}, a.columns, *out)
    elif a.name == "curves":
        from directcm.analysis.figure_curves import mean_table, read_curve

        students = _artifacts(given("students")[0], "student")
        runs = [s.json("student.json")["run"] for s in students]
        curves = [
            read_curve(METHODS[r["method"]], r["seed"], s.file("curve.csv"))
            for r, s in zip(runs, students, strict=True)
        ]
        draw(curves, *out)
        mean_table(curves, a.out.with_name("mean_curves.csv"))
    elif a.name == "results":
        draw(*given("table"), *out)
    else:
        paper: dict[str, Any] = {"paper": a.paper_scale}
        alpha: dict[str, Any] = {"alpha": a.alpha}
        space: dict[str, Any] = {"space": a.space}
        inputs: dict[str, tuple[str, dict[str, Any]]] = {
            "sweep": ("metrics comparisons axis", paper | alpha | space),
            "frontier": ("metrics", paper | space),
            "compute": ("metrics students_table", paper | space),
            "budget": ("metrics", paper | space),
            "error": ("errors", {}),
            "sensitivity": ("comparisons", alpha | space),
            "map": ("comparisons", alpha),
            "training": ("metrics", {}),
        }
        names, more = inputs[a.name]
        draw(*given(*names.split(), "setting"), *out, **more)


def _samples_of(items: Sequence[tuple[str, str]]) -> dict[str, list[Any]]:
    """Row → its samples: the teacher's shards, and of a student's collection the finished student in the fewest steps."""
    from directcm.artifacts import COLLECTION, MANIFEST, open_artifact, open_collection, read_json

    sets: dict[str, list[Any]] = {}
    for row, path in items:
        folder = Path(path).parent if Path(path).name == MANIFEST else Path(path)
        if read_json(folder / MANIFEST).get("kind") == COLLECTION:
            sets.setdefault(row, []).append(next(iter(open_collection(folder, "samples").values())))
        else:
            sets.setdefault(row, []).append(open_artifact(folder, "samples"))
    return sets


def _claims(a: argparse.Namespace) -> None:
    from directcm.analysis.tables import claims

    others = [a.out.with_suffix(suffix) for suffix in (".tex", ".html", ".json")]
    claims.claims(a.claims, a.comparisons, settings_argument(Config, a.settings), a.out, *others)


def _opening(a: argparse.Namespace) -> None:
    from directcm.analysis import opening

    config, samples = settings_argument(Config, a.settings), _samples_of(a.samples)
    opening.opening(a.metrics, a.compared, a.claims, a.comparisons, a.drawn, samples, config, a.out)


def _gallery(a: argparse.Namespace) -> None:
    from directcm.analysis import gallery

    gallery.gallery(gallery.read_items(a.pictures), a.out, a.title)


def _provenance(a: argparse.Namespace) -> None:
    from directcm import paths
    from directcm.analysis import provenance

    config = settings_argument(Config, a.settings)
    runs = _scope(config, a.scope)
    provenance.provenance_page(config, [a.results / name for name in paths.artefacts(config, runs, a.scope)], a.out)


def _costs(a: argparse.Namespace) -> None:
    from directcm import paths
    from directcm.analysis import provenance

    config = settings_argument(Config, a.settings)
    runs = _scope(config, a.scope)
    provenance.costs_page(
        config,
        [a.results / name for name in paths.artefacts(config, runs, a.scope)],
        [a.results / "benchmarks" / name for name in paths.benchmarks(config, runs, a.scope)],
        a.out,
        a.out.with_suffix(".csv"),
    )


def _show(a: argparse.Namespace) -> None:
    from directcm.analysis.tables import claims, table1
    from directcm.artifacts import read_csv

    first = (read_csv(a.table) or [{}])[0]
    if "verdict" in first:
        print(claims.text(a.table))
    elif {"row", "metric", "mean"} <= first.keys():
        print(table1.text(a.table))
    else:
        raise UserError(f"{a.table}: neither Table 1 nor claims; show reads tables/table1.csv and claims/SCOPE.csv")


def _reproduced(a: argparse.Namespace) -> None:
    from directcm.analysis.reproduced import reproduced
    from directcm.config import load_config

    config = load_config(*a.configfile)
    print(reproduced(config, a.results or Path("results") / config.preset, a.data))


def _publish(a: argparse.Namespace) -> None:
    from directcm.analysis.publish import publish

    for name in publish(Path(), a.results):
        print(f"written: {name}")


def _trace(a: argparse.Namespace) -> None:
    from directcm.analysis import trace

    links = list(trace.chain(a.file, a.results))
    for link in links:
        print(trace.text(link))
    lost = [link for link in links if link.state != trace.UNCHANGED and not link.seen]
    if lost:
        raise UserError(
            f"{a.file}: {len(lost)} of its links are no longer what they were, first {lost[0].name}; run snakemake to make them again"
        )


def _warm(a: argparse.Namespace) -> None:
    from directcm import warm

    command = a.command[1:] if a.command[:1] == ["--"] else a.command
    if not command:
        raise UserError("warm: no command given; say for example directcm warm -- ./my_experiments.sh")
    sys.exit(warm.run(command))


def _plan(a: argparse.Namespace) -> None:
    from directcm import plan
    from directcm.config import load_config

    config = load_config(*a.configfile)
    results = a.results or Path("results") / config.preset
    print(plan.plan(config, _scope(config, a.scope), results, a.rates, a.scope))


def _record(a: argparse.Namespace) -> None:
    from directcm import record

    record.save(a.results)


def _restore(a: argparse.Namespace) -> None:
    from directcm import record

    if text := record.restore(a.results, a.changed):
        print(text)


def _stages(a: argparse.Namespace) -> None:
    from directcm import record
    from directcm.config import load_config

    config = load_config(*a.configfile)
    record.write_stages(config, _scope(config, a.scope), a.configfile[-1], a.scope, a.without)


def _launch(a: argparse.Namespace) -> None:
    from directcm import launch

    argv = a.verb_and_flags[1:] if a.verb_and_flags[:1] == ["--"] else a.verb_and_flags
    if not argv:
        raise UserError("launch: no verb given; say for example directcm launch --processes 2 -- train …")
    launch.launch(a.processes, a.nodes, argv)


def _schema(a: argparse.Namespace) -> None:
    from directcm.artifacts import write_text
    from directcm.reference import render

    write_text(a.out, render(a.out.suffix))


def _cards(a: argparse.Namespace) -> None:
    from directcm import cards

    config = settings_argument(Config, a.settings)
    cards.cards(a.results, _scope(config, a.scope), a.out)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"not valid JSON ({error})") from None


def _pair(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, path


def _set(text: str) -> tuple[int, int]:
    step, _, steps = text.partition(":")
    if not (step.isdigit() and steps.isdigit() and int(step) and int(steps)):
        raise argparse.ArgumentTypeError(f"{text!r} is not STEP:STEPS, e.g. 250:1")
    return int(step), int(steps)


def _number(kind: Callable[[str], Any], low: float) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        value = kind(text)
        if not value >= low:
            raise argparse.ArgumentTypeError(f"{text} is below {low}")
        return value

    convert.__name__ = kind.__name__
    return convert


NATURAL, INDEX, SCALE = _number(int, 1), _number(int, 0), _number(float, 0)


class _Parser(argparse.ArgumentParser):
    """One line and exit code 2 for a wrong call, without the usage dump."""

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def _result(text: str) -> Path:
    """Where a result goes; rules name an artefact by its manifest."""
    path = Path(text)
    return path.parent if path.name == "manifest.json" else path


def parser() -> argparse.ArgumentParser:
    """All verbs and their flags."""
    top = _Parser(prog="directcm", description=__doc__.splitlines()[0] if __doc__ else None)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)

    def verb(
        name: str, call: Callable[[argparse.Namespace], None], text: str, out: bool = True
    ) -> argparse.ArgumentParser:
        p = verbs.add_parser(name, help=text, description=text)
        p.set_defaults(call=call)
        if out:
            p.add_argument("--out", type=_result, required=True, help="where the result goes: its folder, or a file")
        p.add_argument("--log", type=Path, help="file that gets what is printed as well")
        return p

    def settings(p: argparse.ArgumentParser, block: str) -> None:
        p.add_argument(
            "--settings",
            required=True,
            metavar="JSON",
            help=f"the block {block} of the configuration, as JSON or a file",
        )

    def common(p: argparse.ArgumentParser, *inputs: str, scratch: bool = True) -> None:
        for name in inputs:
            p.add_argument(f"--{name}", required=True, help=f"the {name} artefact")
        p.add_argument("--seed", type=INDEX, required=True, help="the run's seed")
        p.add_argument("--threads", type=NATURAL, default=1, help="CPU threads")
        if scratch:
            p.add_argument("--scratch", type=Path, required=True, help="where unfinished work is kept")

    def ode(p: argparse.ArgumentParser) -> None:
        p.add_argument("--solver", choices=list(SOLVERS), required=True)
        p.add_argument("--N", type=NATURAL, required=True, help="intervals")
        p.add_argument("--w", type=SCALE, required=True, help="guidance scale, 1 is unguided")

    def tidy(p: argparse.ArgumentParser, *names: str, required: bool) -> None:
        for name in names:
            p.add_argument(f"--{name}", type=Path, required=required, metavar="CSV", help=f"the tidy table {name}.csv")

    precision = {"choices": ["no", "fp16", "bf16"], "default": "no"}

    p = verb("data", _data, "copy a data set into an artefact with a fixed split")
    settings(p, "data")
    p.add_argument("--seed", type=INDEX, required=True, help="the run's seed")
    p.add_argument("--least", type=NATURAL, default=1, help="training images that the metrics need")
    p.add_argument("--classes", action="store_true", help="each image needs a label: the teacher is told the class")

    p = verb("teacher", _teacher, "train a small teacher, record an existing one, or make the exact one")
    settings(p, "teacher.<kind>")
    p.add_argument("--kind", choices=list(TEACHERS), required=True)
    p.add_argument("--process", required=True, metavar="JSON", help="the block process of the configuration")
    common(p, "data")

    p = verb("encode", _encode, "encode images and captions once")
    settings(p, "encode")
    p.add_argument("--precision", **precision)  # type: ignore[arg-type]
    common(p, "teacher", "data")

    p = verb("noise", _noise, "draw the evaluation's noise and prompts")
    p.add_argument("--samples", type=NATURAL, required=True)
    p.add_argument("--purpose", choices=["evaluation", "floor", "search"], default="evaluation")
    common(p, "data", "latents", scratch=False)

    p = verb("targets", _targets, "solve the ODE from a shard of the start points")
    settings(p, "targets")
    ode(p)
    p.add_argument("--coupling", choices=COUPLINGS, default=COUPLINGS[0], help="where start points come from")
    p.add_argument("--shard", type=INDEX, required=True)
    p.add_argument("--precision", **precision)  # type: ignore[arg-type]
    common(p, "teacher", "latents")

    p = verb("endpoints", _endpoints, "solve the ODE from a shard of the start points of the errors by start time")
    settings(p, "errors")
    ode(p)
    p.add_argument("--shard", type=INDEX, required=True)
    p.add_argument("--batch-size", type=NATURAL, required=True, help="rows of one teacher evaluation")
    p.add_argument("--precision", **precision)  # type: ignore[arg-type]
    common(p, "teacher", "latents")

    p = verb("trajectories", _trajectories, "keep whole ODE trajectories from a few start points of training")
    ode(p)
    p.add_argument("--count", type=NATURAL, required=True)
    p.add_argument("--precision", **precision)  # type: ignore[arg-type]
    common(p, "teacher", "latents", scratch=False)

    p = verb("train", _train, "distil the teacher into a student")
    settings(p, "train")
    p.add_argument("--method", choices=list(METHODS), required=True)
    ode(p)
    p.add_argument("--adapter", required=True, help=f"full or loraR ({ADAPTER})")
    p.add_argument("--loss", choices=list(DISTANCES), required=True)
    p.add_argument("--lr", type=float, required=True)
    p.add_argument("--batch-size", type=NATURAL, required=True)
    p.add_argument("--steps", type=NATURAL, required=True)
    p.add_argument("--training-seed", type=INDEX, required=True)
    p.add_argument("--pool", type=NATURAL, required=True, help="number of start points")
    p.add_argument("--snapshots", nargs="*", type=NATURAL, help="steps after which the student is kept too")
    p.add_argument("--targets", nargs="*", help="the shards of solved targets")
    p.add_argument("--tensorboard", type=Path, help="folder for TensorBoard's events")
    p.add_argument("--own", help="numbers of the method's own as JSON, where not its file's")
    common(p, "teacher", "latents")

    p = verb("sample", _sample, "sample teacher or student from the shared noise")
    settings(p, "evaluation")
    ode(p)
    p.add_argument("--shard", type=INDEX, default=0)
    p.add_argument("--shards", type=NATURAL, default=1)
    p.add_argument("--student", help="the student; without it the teacher is sampled")
    p.add_argument("--sets", nargs="*", type=_set, metavar="STEP:STEPS", help="student: optimiser step:sampling steps")
    common(p, "teacher", "latents", "noise")

    p = verb("search", _search, "find a student's sampling times by a greedy ternary search")
    settings(p, "search")
    for block in ("statistics", "evaluation"):
        p.add_argument(f"--{block}", required=True, metavar="JSON", help=f"the block {block} of the configuration")
    p.add_argument("--search-noise", required=True, help="the noise that times are chosen on; --noise is held out")
    p.add_argument("--reference", required=True, help="features of the data, or of the teacher's samples")
    p.add_argument("--extractor", help="the trained extractor, where it is trained here")
    common(p, "student", "teacher", "latents", "noise")

    p = verb("error_by_time", _error_by_time, "measure a student's ODE error by start time, in latents and pixels")
    settings(p, "errors")
    p.add_argument("--batch-size", type=NATURAL, required=True)
    p.add_argument("--precision", **precision)  # type: ignore[arg-type]
    p.add_argument("--endpoints", nargs="+", required=True, help="shards of the student's own ODE")
    p.add_argument("--refined", nargs="+", required=True, help="shards of the refined ODE")
    common(p, "student", "teacher", "latents", scratch=False)

    p = verb("edit", _edit, "edit held-out images without training: inpainting, colourisation, super-resolution …")
    settings(p, "editing")
    ode(p)
    p.add_argument("--batch-size", type=NATURAL, required=True, help="rows of one evaluation")
    p.add_argument("--precision", **precision)  # type: ignore[arg-type]
    p.add_argument("--student", help="the student; without it the teacher's solved ODE takes its place")
    p.add_argument("--reference", help="student: the teacher's edits under its ODE")
    common(p, "teacher", "latents", scratch=False)

    p = verb("convergence", _convergence, "measure what theory predicts as N grows, on exact teachers of its own")
    settings(p, "convergence")
    common(p, scratch=False)

    p = verb("extractor", _extractor, "train the small CLIP and its quality head")
    p.add_argument("--name", choices=["clip_tiny"], required=True)
    settings(p, "extractors.<name>")
    common(p, "data", scratch=False)

    p = verb("features", _features, "extract features of samples, or of the data reference")
    p.add_argument("--name", choices=list(EXTRACTORS), required=True)
    p.add_argument("--extractor", help="the trained extractor, where it is trained here")
    p.add_argument("--samples", nargs="*", help="the samples' shards; without them the data reference")
    p.add_argument("--collection", help="instead of --samples: a student's collection of samples")
    p.add_argument("--data", required=True)
    p.add_argument("--noise", required=True)
    p.add_argument("--batch-size", type=NATURAL, default=64)
    p.add_argument("--threads", type=NATURAL, default=1, help="CPU threads")

    p = verb("evaluate", _evaluate, "compute the metrics of one set of samples")
    settings(p, "statistics")
    p.add_argument("--metrics", nargs="+", choices=list(METRICS), required=True, metavar="METRIC")
    p.add_argument(
        "--row",
        choices=["Teacher", "Teacher, other noise", *METHODS.values()],
        help="whose numbers these are; default: the method of --run",
    )
    p.add_argument(
        "--steps", type=NATURAL, default=1, help="sampling steps: the teacher's N; a collection knows its own"
    )
    p.add_argument("--run", type=_json, required=True, metavar="JSON", help="the run's axes, recorded")
    p.add_argument("--seed", type=INDEX, required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--noise", required=True)
    given = p.add_mutually_exclusive_group(required=True)
    given.add_argument("--samples", nargs="+", help="the samples' shards")
    given.add_argument("--collection", help="a student's collection of samples; --features are collections then")
    p.add_argument("--features", nargs="*")
    p.add_argument("--data-features", nargs="*")
    p.add_argument("--reference-noise", help="the reference's noise where it is another than the samples'")
    p.add_argument("--reference", nargs="*", help="the teacher's samples under the student's own ODE")
    p.add_argument("--reference-features", nargs="*")

    p = verb("table", _table, "write a table as CSV, LaTeX and HTML; Table 1 as JSON too")
    tables = ("table1", "table2", "table3", "table4", "table_metrics", "table_comparison", "table_search")
    p.add_argument("name", choices=tables)
    p.add_argument("--students-table", type=Path, metavar="CSV", help="table4: the tidy table students.csv")
    settings(p, "configuration")
    tidy(p, "metrics", "comparisons", required=False)
    p.add_argument("--searches", nargs="*", help="table_search: the searches of sampling times")

    p = verb(
        "compare", _compare, "compare students: methods, later with earlier, more steps with few, two values of an axis"
    )
    settings(p, "statistics")
    p.add_argument("--setting", type=_json, required=True, metavar="JSON", help="all axes but method and seed")
    p.add_argument(
        "--pairs", nargs="*", type=_methods, default=[FIRST], metavar="METHOD:METHOD", help="the methods to compare"
    )
    p.add_argument(
        "--stepwise",
        nargs="*",
        choices=list(METHODS),
        default=[],
        help="methods to compare in more steps with the fewest",
    )
    p.add_argument(
        "--along", nargs="*", choices=list(METHODS), default=list(METHODS), help="methods to compare along training"
    )
    p.add_argument(
        "--claimed",
        nargs="*",
        type=_claimed,
        metavar="METRIC:REFERENCE",
        help="what is compared of other pairs than the paper's; all without",
    )
    p.add_argument("--beyond", type=INDEX, default=0, help="compare sets of more sampling steps than this alone")
    p.add_argument("--threads", type=NATURAL, default=1, help="tests at once")
    p.add_argument(
        "--others",
        nargs="*",
        type=_across,
        default=[],
        metavar="METHOD:AXIS~VALUE",
        help="settings of another value of one axis, whose students of a method are compared with this setting's",
    )
    p.add_argument("--metrics", nargs="+", required=True, help="collections of metrics of the setting's students")
    p.add_argument("--features", nargs="*", type=_pair, default=[], metavar="EXTRACTOR=FOLDER", help="their features")
    p.add_argument(
        "--teacher", nargs="*", type=_pair, default=[], metavar="EXTRACTOR=FOLDER", help="the teacher's features"
    )
    p.add_argument("--data", nargs="*", type=_pair, default=[], metavar="EXTRACTOR=FOLDER", help="the data's features")
    p.add_argument("--seed", type=INDEX, required=True, help="the run's seed")

    p = verb("collect", _collect, "put all numbers of a scope into tidy tables")
    settings(p, "configuration")
    p.add_argument("--results", type=Path, required=True, help="the results folder of the configuration's preset")
    p.add_argument("--scope", choices=["main", "paper"], required=True, help="the main comparison, or the whole grid")

    p = verb("claims", _claims, "turn claims into verdicts: CSV, LaTeX, HTML and JSON")
    p.add_argument("--claims", type=Path, required=True, help="claims.yaml")
    settings(p, "configuration")
    tidy(p, "comparisons", required=True)

    p = verb("figure", _figure, "draw a figure as PDF, PNG and the CSV of what is drawn")
    names = (
        "supervision",
        "samples",
        "sweep",
        "frontier",
        "compute",
        "error",
        "budget",
        "sensitivity",
        "map",
        "training",
        "editing",
    )
    p.add_argument("name", choices=[*names, "curves", "results", "convergence"])
    p.add_argument("--trajectories", help="supervision: the artefact")
    p.add_argument("--convergence", help="convergence: the artefact")
    p.add_argument("--noise", help="samples: the noise artefact")
    p.add_argument("--samples", nargs="*", type=_pair, metavar="ROW=FOLDER", help="samples: whose samples lie where")
    p.add_argument("--edits", nargs="*", type=_pair, metavar="ROW=FOLDER", help="editing: whose edits lie where")
    p.add_argument("--columns", type=NATURAL, default=10, help="samples, editing: how many")
    p.add_argument("--students", nargs="*", help="curves: the students")
    p.add_argument("--table", type=Path, help="results: table1.csv")
    tidy(p, "metrics", "comparisons", "errors", required=False)
    p.add_argument("--students-table", type=Path, metavar="CSV", help="compute: the tidy table students.csv")
    p.add_argument("--axis", choices=["N", "w"], help="sweep: what is swept")
    p.add_argument("--setting", type=_json, metavar="JSON", help="the main setting: all axes but method and seed")
    p.add_argument("--alpha", type=float, default=0.05, help="sweep, sensitivity, map: level of significance")
    p.add_argument("--space", choices=["latent", "pixel"], default="latent", help="what the teacher diffuses")
    p.add_argument("--paper-scale", nargs="*", default=[], metavar="METRIC", help="metrics on the paper's own scale")

    p = verb("opening", _opening, "write the report's first page: Table 1, Figure 2 and the verdicts")
    settings(p, "configuration")
    p.add_argument("--claims", type=Path, required=True, help="claims.yaml")
    tidy(p, "metrics", "comparisons", required=True)
    p.add_argument("--compared", type=Path, required=True, metavar="CSV", help="comparisons.csv of the main comparison")
    p.add_argument("--drawn", type=Path, required=True, metavar="CSV", help="Figure 2's own CSV")
    p.add_argument(
        "--samples", nargs="*", type=_pair, required=True, metavar="ROW=FOLDER", help="what Figure 2 is drawn from"
    )

    p = verb("gallery", _gallery, "write a page of pictures that a click enlarges")
    p.add_argument(
        "--pictures", required=True, metavar="JSON", help="a list of {path, title, caption, section}, or a file"
    )
    p.add_argument("--title", default="Gallery")

    for name, call, text in (
        ("costs", _costs, "write what each step cost, as a page and as CSV"),
        ("provenance", _provenance, "write what ran, and from what"),
        ("cards", _cards, "write each student's model card, and the list of them"),
    ):
        p = verb(name, call, text)
        settings(p, "configuration")
        p.add_argument("--results", type=Path, required=True, help="the results folder of the configuration's preset")
        p.add_argument(
            "--scope", choices=["main", "paper"], required=True, help="the main comparison, or the whole grid"
        )

    p = verb("show", _show, "print Table 1, or the verdicts", out=False)
    p.add_argument("table", type=Path, help="tables/table1.csv or claims/SCOPE.csv")

    p = verb("reproduced", _reproduced, "compare a run's Table 1 with the published one, cell by cell", out=False)
    p.add_argument(
        "--configfile", nargs="+", type=Path, default=[Path("config.yaml")], help="one over the other, later ones win"
    )
    p.add_argument("--results", type=Path, help="default: results/<preset>")
    p.add_argument("--data", type=Path, default=Path("docs/data"), help="the published tables; default: docs/data")

    p = verb(
        "publish", _publish, "write the published tables into README.md and docs/results.md, from docs/data", out=False
    )
    p.add_argument(
        "--from",
        dest="results",
        type=Path,
        metavar="RESULTS",
        help="results/<preset> of a finished run, whose tidy tables are copied into docs/data first",
    )

    p = verb(
        "trace", _trace, "print what a result was made from, back to the data, and what has changed since", out=False
    )
    p.add_argument("file", type=Path, help="an artefact's folder, or any file in it, such as metrics.json")
    p.add_argument(
        "--results", type=Path, help="where to look for what it was made from; default: the results around it"
    )

    p = verb(
        "warm", _warm, "run a command in which every verb starts without importing the big libraries again", out=False
    )
    p.add_argument("command", nargs=argparse.REMAINDER, help="the command, after --")

    p = verb("plan", _plan, "print what a configuration costs, and what of it is done", out=False)
    p.add_argument("scope", nargs="?", choices=["main", "paper"], default="paper", help="default: paper, everything")
    p.add_argument(
        "--configfile", nargs="+", type=Path, default=[Path("config.yaml")], help="one over the other, later ones win"
    )
    p.add_argument("--results", type=Path, help="default: results/<preset>")
    p.add_argument("--rates", type=Path, default=Path("benchmarks/rates.csv"), help="measured rates")

    p = verb("record", _record, "put Snakemake's records of results among them, for DVC to version", out=False)
    p.add_argument("results", type=Path, help="results/<preset>, from the repository's top")

    p = verb("restore", _restore, "give Snakemake its records of results back", out=False)
    p.add_argument("results", type=Path, help="results/<preset>, from the repository's top")

    p.add_argument(
        "--changed", action="store_true", help="only where DVC has brought another record than the last here"
    )

    p = verb("stages", _stages, "derive records/<preset>/dvc.yaml from dvc.yaml", out=False)
    p.add_argument("scope", choices=["main", "paper"], help="what was run: the main comparison, or the whole grid")
    p.add_argument("--configfile", nargs="+", type=Path, required=True, help="config.yaml and the preset's overlay")
    p.add_argument(
        "--without",
        nargs="*",
        default=[],
        metavar="KIND",
        help="steps between whose bytes are left out: targets, samples …",
    )

    p = verb("launch", _launch, "run a verb as several processes that train together", out=False)
    p.add_argument("--processes", type=NATURAL, required=True, help="of all nodes together; one a GPU")
    p.add_argument("--nodes", type=NATURAL, default=1, help="nodes of the SLURM job")
    p.add_argument("verb_and_flags", nargs=argparse.REMAINDER, metavar="-- VERB …", help="train with its flags")

    verb("schema", _schema, "describe the configuration: schema (.json), page (.md) or commented defaults (.yaml)")
    return top


def _of_the_system(error: Exception, out: Path | None) -> str | None:
    """What the system refused, as a user's line; None where it is something else."""
    # Libraries pass a full disk on in errors of their own, without a file's name.
    if any(word in str(error) for word in ("No space left on device", "Disk quota exceeded")):
        return f"{getattr(error, 'filename', None) or out}: the disk is full; make room and run again, what is finished stays"
    if isinstance(error, OSError) and error.filename is not None and not isinstance(error, ConnectionError):
        return f"{error.filename}: {error.strerror}"
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; 0 on success, 2 on a user's mistake (one line), 75 when told to stop, 1 on anything else (traceback)."""
    # torch and diffusers make a million objects while they are imported: looking for garbage among them every 700 is a
    # quarter of a job's start.
    gc.set_threshold(200_000)
    environment.start()
    arguments = parser().parse_args(argv)
    plain = sys.stderr
    log = None
    try:
        # Of several processes the first writes the log; the others' lines come through their launcher.
        if arguments.log is not None and os.environ.get("RANK", "0") == "0":
            arguments.log.parent.mkdir(parents=True, exist_ok=True)
            log = open(arguments.log, "w", encoding="utf-8")  # noqa: SIM115
            os.environ["DIRECTCM_LOG"] = str(arguments.log)
            sys.stderr = _Tee(plain, log)
        with stop.listening():
            arguments.call(arguments)
        return 0
    except stop.Stopped as stopped:
        print(f"directcm {arguments.verb}: {stopped}", file=sys.stderr, flush=True)
        return stop.leave()
    except UserError as error:
        print(f"directcm {arguments.verb}: error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 1
    except Exception as error:
        line = _of_the_system(error, getattr(arguments, "out", None))
        if line is None:
            traceback.print_exc(file=sys.stderr)
            return 1
        print(f"directcm {arguments.verb}: error: {line}", file=sys.stderr)
        return 2
    finally:
        sys.stderr = plain
        if log is not None:
            log.close()


def entry() -> int:
    """The program: a verb in a fork of the warm helper where there is one, else here."""
    if "DIRECTCM_WARM" in os.environ:
        from directcm import warm

        status = warm.ask(sys.argv[1:])
        if status is not None:
            return status
    return main()


if __name__ == "__main__":
    sys.exit(entry())
