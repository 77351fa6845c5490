"""The verb `plan`: the work of a configuration before anything runs: jobs, teacher forwards, hours on named devices, storage.

A forward is one row through the teacher's U-Net, so guidance takes two (docs/methods.md). Training start points are uniform over the
grid: a target takes (N + 1)/2 steps on average, and the count is an expectation. Hours come from measured rates: those of
`benchmarks/rates.csv`, and in their place those that a rehearsal has measured (`directcm rehearse`). Analysis has no rate, nor has
training a teacher.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from directcm.config import Config, Ode, OdeBlock, Run, passes, paths
from directcm.config.data import embedded_images
from directcm.config.registry import methods
from directcm.config.specs import DATA_SETS, LAYOUTS
from directcm.diffusion.processes import make
from directcm.diffusion.solvers import make_solver
from directcm.errors import UserError
from directcm.evaluation import editing
from directcm.evaluation.search import most_probes
from directcm.runtime.artifacts import COLLECTION, MANIFEST, read_json

# Those of the repository, and those of a rehearsal in this working folder, which take their place.
RATES = Path("benchmarks/rates.csv")
REHEARSED = Path("rehearsals/rates.csv")
# Artefacts that are made without networks; of metrics the baselines are not among them.
WITHOUT_NETWORKS = ("data", "noise", "floor_noise", "search_noise", "metrics", "convergence", "fixed_points")
# Work that goes through the U-Net, methods' training apart.
UNET = ("teacher", "student")
COLUMNS = ["date", "commit", "device", "teacher", "what", "per_second", "n", "note"]


@dataclass
class Job:
    """One artefact: `forwards` rows through the teacher, `pairs` drawn in training with `method`, `drawn` rows through a student.

    `latents` and `images`: how many of them it stores, as far as that is known beforehand. `seen`: images that it reads.
    """

    kind: str
    folder: str
    forwards: float = 0.0
    method: str = ""
    pairs: float = 0.0
    drawn: float = 0.0
    latents: float = 0.0
    images: float = 0.0
    seen: float = 0.0

    def work(self) -> dict[str, float]:
        """How much of what it does, by what a rate is of: a method's pairs hold its teacher forwards, a job starts once."""
        found = {
            "teacher": 0.0 if self.method else self.forwards,
            self.method: self.pairs,
            "student": self.drawn,
            "decode": self.images if self.kind in ("reference", "floor", "samples") else 0.0,
            "encode": self.seen if self.kind == "latents" else 0.0,
            "features": self.seen if self.kind == "features" else 0.0,
            # One job makes the features of a set by all extractors of a pass.
            start_of(self.kind): float(self.kind != "features" or self.seen > 0),
        }
        return {what: count for what, count in found.items() if count}


def start_of(kind: str) -> str:
    """The name of the rate of what a job of this kind does beside its loops: jobs a second."""
    return f"start of {kind}"


def images_of(config: Config) -> int:
    """Images of the data set: of one outside the project, if it is none that is known, those that the data reference needs at least."""
    if DATA_SETS[config.data.kind].images is not None:
        return embedded_images(config.data.kind, config.data.resolution)[0]
    known, most = LAYOUTS[config.data.layout].images, config.data.most
    if known is None and most is None:
        return math.ceil(config.evaluation.samples / (1 - config.data.held_out))
    return min(count for count in (known, most) if count is not None)


def row_bytes(config: Config) -> tuple[int, int]:
    """Bytes of one latent (float32), and of one RGB image before PNG compression: an upper bound."""
    channels, side = config.latent()
    return 4 * channels * side**2, 3 * config.data.resolution**2


def expected_bytes(config: Config, some: Iterable[Job]) -> float:
    """Bytes of the latents and images that jobs store, as far as they are known beforehand."""
    latent, image = row_bytes(config)
    return sum(job.latents * latent + job.images * image for job in some)


def teacher_name(config: Config) -> str:
    """The teacher's name in the rates: its kind and the side of its images in pixels."""
    return f"{config.teacher.kind}, {config.data.resolution} px"


def rows_per_step(ode: OdeBlock) -> int:
    """Rows through the teacher for one step of one start point."""
    return make_solver(ode.solver).evaluations_per_step * (1 if ode.w in (0.0, 1.0) else 2)


def jobs(config: Config, runs: Sequence[Run], scope: str = "paper") -> list[Job]:
    """Every artefact of these runs with its work, in the order they are made."""
    by_key = {run.key: run for run in runs}
    rows, sets = paths.rows_solved(config.grid()), paths.sets(config)
    samples, search = config.evaluation.samples, config.search
    out = []
    for folder in paths.artefacts(config, runs, scope):
        _, kind, rest = paths.split(folder)
        job = Job(kind, folder)
        match kind:
            case "reference" | "floor" | "targets" | "endpoints":
                _solving(job, rest, config, rows)
            case "trajectories":
                job.forwards = config.figures.trajectories * config.ode.N * rows_per_step(config.ode)
            case "students":
                run = by_key[rest]
                job.method, job.pairs = run.method, float(run.steps * run.batch_size)
                method = methods()[run.method]
                if method.teacher and not (method.stored and paths.pool_of(run, rows)):
                    # Of log₂ N halvings only the first asks the teacher, for two steps a pair; a slope is one evaluation of a step.
                    share = 2 / math.log2(run.N) if method.halves else 1
                    if method.tangent:
                        share = 1 / make_solver(run.ode.solver).evaluations_per_step
                    job.forwards = job.pairs * share * rows_per_step(run.ode)
            case "samples":
                if rest.startswith(paths.VARIANTS):
                    variants = config.variants(by_key[rest.removeprefix(paths.VARIANTS)])
                    job.drawn, chosen = float(samples * passes(variants)), len(variants)
                else:
                    plain = sets[by_key[rest.removeprefix(paths.MORE)]][rest.startswith(paths.MORE)]
                    job.drawn, chosen = float(samples * sum(k for _, k in plain)), len(plain)
                job.latents = job.images = samples * chosen
            case "untrained":
                job.drawn = job.latents = float(samples)
            case "edits":
                who, name = rest.split("/")
                ode = Ode.parse(name) if who == "teacher" else by_key[name].ode
                calls, steps = editing.evaluations(config.editing, make(config.process), ode.N, config.data.resolution)
                if who == "teacher":
                    job.forwards = float(config.editing.images * steps * rows_per_step(ode))
                else:
                    job.drawn = float(config.editing.images * calls)
            case "latents":
                job.seen = job.latents = images_of(config)
            case "features":
                # One job reads a set for all extractors of a pass (workflow/rules/metrics.smk): it counts with the first of them.
                name, _, of = rest.partition("/")
                of = of.removeprefix("students/")
                whose = by_key.get(of.removeprefix(paths.MORE).removeprefix(paths.VARIANTS))
                if name in paths.leading(config):
                    if whose and of.startswith(paths.VARIANTS):
                        count = len(config.variants(whose))
                    else:
                        count = len(sets[whose][of.startswith(paths.MORE)]) if whose else 1
                    job.seen = samples * count
            case "metrics" if rest.startswith("baselines/"):
                # The untrained start's step, and one of the guided teacher.
                job.kind, job.drawn = "baselines", float(samples)
                ode = Ode.parse(rest.removeprefix("baselines/"))
                job.forwards = samples * rows_per_step(ode.at(solver="ddim"))
            case "noise" | "floor_noise":
                job.latents = samples
            case "search_noise" if search:
                job.latents = search.samples
            case "search" if search:
                # At most: all probes of the searches, and even and found times on the evaluation's noise.
                most = most_probes(by_key[rest].N - 1)
                drawn = sum(k * most for k in range(2, max(search.steps) + 1)) + sum(search.steps)
                job.drawn = float(drawn * search.samples + 2 * sum(search.steps) * samples)
        out.append(job)
    return out


def _solving(job: Job, rest: str, config: Config, rows: Mapping[str, int]) -> None:
    """The work of a shard of the ODE's solutions; `rest`: its folder below the kind's. `rows`: of each pool (`paths.rows_solved`)."""
    name, shard = rest.split("/shard~")
    solved, _, start_points = name.partition("+coupling~")
    ode = Ode.parse(solved.partition("+")[0])
    match job.kind:
        case "targets":
            # Mean steps a start point; a trajectory has N of them for its N steps.
            mean = {"": (ode.N + 1) / 2, "prior": ode.N, "trajectory": 1}[start_points]
            first = solved.endswith(paths.FIRST_STEP)
            size = rows[name] if first else config.targets.shard
            steps = size * (1 if first else mean)
            if paths.STATES in solved:
                # One solve to the largest k: Σ min(k, steps left) over the N start times.
                kept = paths.states(config.grid())[name]
                steps = size * (kept[-1] - kept[-1] * (kept[-1] - 1) / (2 * ode.N))
            # The endpoint and the state after one step; on trajectories the start point too.
            states = len(kept) if paths.STATES in solved else 0
            job.latents = size * (states or (1 if first else 3 if start_points == "trajectory" else 2))
        case "endpoints":
            size, times = config.errors.shard, config.errors.times
            job.latents = min(size, times * config.errors.points - int(shard) * size)
            # Start times are evenly spaced from the largest: N, N − N/times, … steps.
            steps = job.latents * ode.N * (times + 1) / (2 * times)
        case _:
            job.latents = job.images = config.evaluation.samples / config.evaluation.jobs
            steps = job.latents * ode.N
    job.forwards = steps * rows_per_step(ode)


def read_rates(path: Path) -> list[dict[str, str]]:
    """The measured rates; none if there is no file."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows, 2):
        try:
            good = set(COLUMNS) <= set(row) and float(row["per_second"]) > 0
        except (TypeError, ValueError):
            good = False
        if not good:
            raise UserError(f"{path}: line {number} is not {', '.join(COLUMNS)} with a rate above 0")
    return rows


def spent(some: Iterable[Job], rates: Mapping[str, float]) -> dict[str, float] | None:
    """Device seconds by what is done in them; None if the rate of the teacher or of a method was not measured.

    A method's rate includes its teacher forwards; a student whose rate is not known samples at the teacher's. What else has no
    rate is left out, and so is what needs no network.
    """
    found: dict[str, float] = {}
    for job in some:
        if job.kind in WITHOUT_NETWORKS:
            continue
        for what, count in job.work().items():
            rate = rates.get(what) or (rates.get("teacher") if what == "student" else None)
            if rate:
                found[what] = found.get(what, 0.0) + count / rate
            elif what in ("teacher", "student", job.method):
                return None
    return found


def hours(some: Iterable[Job], rates: Mapping[str, float]) -> float | None:
    """Device hours of solving, training and sampling, and of what else was measured (`spent`); None where that is."""
    found = spent(some, rates)
    return None if found is None else sum(found.values()) / 3600


def unet_hours(some: Iterable[Job], rates: Mapping[str, float]) -> float | None:
    """Those of them in which the U-Net works: solving, training and sampling."""
    found, methods_ = spent(some, rates), {job.method for job in some}
    return None if found is None else sum(s for what, s in found.items() if what in {*UNET, *methods_}) / 3600


def shares(some: Sequence[Job], rates: Mapping[str, float]) -> str:
    """How much of the hours is the U-Net's, and what is not in them."""
    whole, alone = hours(some, rates), unet_hours(some, rates)
    wanted = dict.fromkeys(what for job in some if job.kind not in WITHOUT_NETWORKS for what in job.work())
    missing = [what for what in wanted if what not in rates and not what.startswith("start of") and what not in UNET]
    missing += [] if any(what.startswith("start of") for what in rates) else ["starts of jobs"]
    without = f"; without {', '.join(missing)}, which were not measured" if missing else ""
    return f"U-Net {alone:.2f} h, {alone / whole:.2f} of it{without}" if whole and alone else f"nothing to do{without}"


def size(folder: Path) -> int | None:
    """Bytes listed by an artefact, including a collection's parts; None if it is not there."""
    try:
        manifest = read_json(folder / MANIFEST)
        total = int(manifest["bytes"])
        parts = manifest["settings"]["parts"] if manifest["kind"] == COLLECTION else []
    except (UserError, KeyError, TypeError, ValueError):
        return None
    inside = [size(folder / str(part)) for part in parts]
    return None if None in inside else total + sum(part or 0 for part in inside)


def rates_for(config: Config, files: Iterable[Path]) -> dict[str, dict[str, float]]:
    """Device → what → how many a second, of this teacher; a later file's take an earlier one's place."""
    found: dict[str, dict[str, float]] = {}
    for row in itertools.chain(*map(read_rates, files)):
        if row["teacher"] == teacher_name(config):
            found.setdefault(row["device"], {})[row["what"]] = float(row["per_second"])
    return found


def plan(
    config: Config,
    runs: Sequence[Run],
    results: Path,
    rates: Sequence[Path] = (RATES, REHEARSED),
    scope: str = "paper",
) -> str:
    """The plan as text."""
    found = jobs(config, runs, scope)
    made = {job.folder: there for job in found if (there := size(results / job.folder)) is not None}
    to_do = [job for job in found if job.folder not in made]

    def line(name: str, some: Sequence[Job], expected: float | None) -> str:
        done = [made[job.folder] for job in some if job.folder in made]
        left = sum(job.forwards for job in some if job.folder not in made)
        return (
            f"{name:<14}{len(some):>7,}{len(done):>7,}{sum(job.forwards for job in some):>20,.0f}{left:>16,.0f}"
            f"{_bytes(sum(done)):>12}{_bytes(expected) if expected is not None else 'not known':>12}"
        )

    lines = [
        f"{config.preset}: {len(runs)} students, {len(found)} artefacts, {len(made)} of them done",
        "",
        f"{'artefacts':<14}{'count':>7}{'done':>7}{'teacher forwards':>20}{'still to do':>16}{'on disk':>12}{'all of it':>12}",
    ]
    unknown, whole = [], 0.0
    for kind in dict.fromkeys(job.kind for job in found):
        some = [job for job in found if job.kind == kind]
        known = [made[job.folder] for job in some if job.folder in made]
        # Missing artefacts count with the mean size of their kind, or with that of the rows they will store.
        expected = len(some) * sum(known) / len(known) if known else expected_bytes(config, some) or None
        if expected is None:
            unknown.append(kind)
        whole += expected or 0
        lines.append(line(kind, some, expected))
    lines.append(line("all", found, whole))
    if unknown:
        lines.append(
            f"(storage without {', '.join(unknown)}: none is there to measure; images count unpacked, as an upper bound)"
        )
    files = ", ".join(str(file) for file in rates if file.is_file()) or "no rates"
    lines += ["", f"Device hours of solving, training and sampling (teacher: {teacher_name(config)}; {files}):"]
    table = rates_for(config, rates)
    for device, measured in table.items():
        every, left = hours(found, measured), hours(to_do, measured)
        if every is None or left is None:
            lines.append(f"  {device}: not all rates were measured (teacher and each method are needed)")
        else:
            lines += [f"  {device}: {every:.2f} h in all, {left:.2f} h still to do", f"    {shares(found, measured)}"]
    if not table:
        lines.append(
            "  not measured on any device: directcm rehearse beforehand, or python benchmarks/rates.py after the teacher and its latents are made"
        )
    return "\n".join(lines)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
