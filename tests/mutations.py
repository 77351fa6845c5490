"""Small faults in methods, solvers, processes and statistics, one at a time: the tests must catch every one.

    python -m tests.mutations              # all of them on a copy of the repository, the table on the screen; 1 where one survives
    python -m tests.mutations --list       # what there is
    python -m tests.mutations --only NAME  # one, or several

A fault is a snippet that occurs exactly once in its file, and what a person might have written instead. Where the snippet is not
there, the code has moved, and the fault has to move with it: nothing is run (`test_mutations.py` says so in every run of the tests).
Caught means that an assertion in a test fails. A fault that cannot be imported, that raises an error, or that breaks a fixture is not a
fair one and counts as not caught.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# First, for the environment that it sets: threads and no network, before NumPy is imported.
import tests.conftest  # noqa: F401
from tests.runs import ROOT, copy_repository

# Imported once, before the copies of this process that run the tests: half of a short run's time. None of the project's own.
WARM = ("torch", "scipy.stats", "scipy.linalg", "hypothesis", "accelerate", "peft", "transformers", "diffusers")
LIMIT = 3600
"""Seconds after which a run counts as hanging, for a fault may well be a loop without an end; it does not count as caught."""


@dataclass(frozen=True)
class Place:
    """A file of the repository and the tests of what is in it, as pytest is told them: few, fast ones that check numbers."""

    path: str
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Mutation:
    """`fault` in words; `old` occurs exactly once in the file of `place`, a key of PLACES."""

    name: str
    place: str
    fault: str
    old: str
    new: str


@dataclass(frozen=True)
class Outcome:
    """How pytest ended (None: it did not), the test that noticed, and what went wrong otherwise."""

    code: int | None
    caught: str | None
    broken: str | None
    seconds: float


SRC = "src/directcm"


def _of(path: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{path}::{name}" for name in names)


METHODS, SOLVERS = "tests/test_methods_sources.py", "tests/test_solvers.py"
CONTINUOUS = "tests/test_continuous.py"
# Where things are, and what tests them: the only paths here.
# fmt: off
PLACES = {
    "methods": Place(f"{SRC}/distill/methods/__init__.py", _of(METHODS, "test_the_average_and_the_targets_get_no_gradient")),
    "ct": Place(f"{SRC}/distill/methods/ct.py", _of(
        METHODS, "test_cts_schedules_are_the_published", "test_ct_by_hand", "test_cts_pairs_are_neighbours_and_all_as_likely",
    )),
    "ict": Place(f"{SRC}/distill/methods/ict.py", _of(
        METHODS, "test_icts_schedule_is_the_published", "test_icts_noise_levels_have_the_median_of_their_normal",
        "test_icts_pairs_have_the_mass_of_their_normal", "test_ict_by_hand",
    )),
    "ect": Place(f"{SRC}/distill/methods/ect.py", _of(METHODS, "test_ects_times", "test_ect_by_hand")),
    "gc_ct": Place(f"{SRC}/distill/methods/gc_ct.py", _of(
        METHODS, "test_with_the_standard_coupling_alone_it_is_its_base",
        "test_the_pair_is_of_what_the_generator_makes_with_the_same_noise",
    )),
    "pd": Place(f"{SRC}/distill/methods/pd.py", _of(
        METHODS, "test_pds_target_is_the_published", "test_pds_first_stage_takes_two_steps_of_the_guided_teacher",
        "test_pds_later_stages_ask_the_student_before",
    )),
    "tangents": Place(f"{SRC}/distill/tangents.py", _of(CONTINUOUS, "test_the_derivative_is_that_of_central_differences")),
    "cd_inf": Place(f"{SRC}/distill/methods/cd_inf.py", _of(
        CONTINUOUS, "test_the_gradient_is_the_papers", "test_a_step_against_the_gradient_makes_the_student_more_consistent",
    )),
    "scd": Place(f"{SRC}/distill/methods/scd.py", _of(
        CONTINUOUS, "test_it_is_lu_and_songs_algorithm", "test_a_step_against_the_gradient_makes_the_student_more_consistent",
    )),
    "distances": Place(f"{SRC}/diffusion/distances.py", (
        *_of(METHODS, "test_ict_by_hand", "test_the_constant_of_pseudo_huber_is_the_published_at_cifars_size"),
        *_of("tests/test_methods.py", "test_distances"),
    )),
    "teachers": Place(f"{SRC}/diffusion/teachers/__init__.py", _of(SOLVERS, "test_guidance_is_the_imagen_form_in_one_forward")),
    "solvers": Place(f"{SRC}/diffusion/solvers.py", _of(
        SOLVERS, "test_ddim_step_by_hand", "test_euler_and_heun_steps_by_hand", "test_edm_heun_step_by_hand",
    )),
    "processes": Place(f"{SRC}/diffusion/processes.py", ("tests/test_processes.py",)),
    "students": Place(f"{SRC}/distill/students.py", _of("tests/test_students.py", "test_formula_by_hand", "test_what_is_free")),
    "targets": Place(f"{SRC}/distill/targets.py", _of(
        "tests/test_targets.py", "test_times_are_uniform_over_the_grid_above_the_end",
    )),
    "sampling": Place(f"{SRC}/evaluation/sampling.py", _of("tests/test_sampling.py", "test_step_indices", "test_three_steps_by_hand")),
    "times": Place(f"{SRC}/runtime/times.py", _of("tests/test_sampling.py", "test_step_indices", "test_step_indices_are_numpys")),
    "rng": Place(f"{SRC}/runtime/rng.py", ("tests/test_rng.py",)),
    "frechet": Place(f"{SRC}/statistics/frechet.py", ("tests/metrics/test_frechet.py",)),
    "kernel": Place(f"{SRC}/statistics/kernel.py", ("tests/metrics/test_kernel.py",)),
    "manifold": Place(f"{SRC}/statistics/manifold.py", ("tests/metrics/test_manifold.py",)),
    "ode_error": Place(f"{SRC}/evaluation/metrics/ode_error.py", _of(
        "tests/metrics/test_scores.py", "test_ode_error_matches_rows_by_number",
    )),
    "inference": Place(f"{SRC}/statistics/inference.py", _of(
        "tests/analysis/test_inference.py", "test_crossed_formulas", "test_crossed_without_a_source",
        "test_bootstrap_values", "test_the_bootstraps_p_and_interval_by_hand",
        "test_permutations_and_halves_are_what_brute_force_gives", "test_holm_by_hand",
    )),
    "halves": Place(f"{SRC}/statistics/halves.py", _of(
        "tests/analysis/test_halves.py", "test_a_mean_by_hand", "test_a_degenerate_statistic_by_hand",
    )),
}

MUTATIONS = (
    # Methods.
    Mutation("target-gradient", "methods", "the target of a pair has a gradient",
        "with torch.random.fork_rng(devices=[x0.device] if x0.is_cuda else []), torch.no_grad():",
        "with torch.random.fork_rng(devices=[x0.device] if x0.is_cuda else []):"),
    Mutation("ct-schedule", "ct", "CT's N(k) grows to s₁ for s₁ + 1",
        "((s1 + 1) ** 2 - s0**2)",
        "(s1**2 - s0**2)"),
    Mutation("ict-mean", "ict", "iCT's P_mean without its sign",
        '"s1": 1280, "p_mean": -1.1',
        '"s1": 1280, "p_mean": 1.1'),
    Mutation("ict-mass", "ict", "iCT's normal of σ without the √2 of erf",
        "/ (math.sqrt(2) * std)",
        "/ std"),
    Mutation("ict-weight", "ict", "iCT's weight 1/(t − r) upside down",
        "scale(1 / gap,",
        "scale(gap,"),
    Mutation("ect-stage", "ect", "ECT's first stage has q⁰ for q¹",
        "/ q ** (stage + 1)",
        "/ q**stage"),
    Mutation("gc-share", "gc_ct", "generated images with the probability of the data's",
        "(batch.v < p)",
        "(batch.v >= p)"),
    Mutation("pd-weight", "pd", "PD's weight α²/σ² without the square",
        "((process.alpha(t) / process.sigma(t)) ** 2)",
        "(process.alpha(t) / process.sigma(t))"),
    Mutation("time-input", "tangents", "the derivative by t is not by ln t as that by x",
        "forward_ad.make_dual(t, t.clone())",
        "forward_ad.make_dual(t, torch.ones_like(t))"),
    Mutation("rate-sign", "cd_inf", "CD∞ up the gradient",
        "(free(f) + 0.5 * rate)",
        "(0.5 * rate - free(f))"),
    Mutation("tangent-sign", "scd", "sCM's tangent with the other sign",
        "((moved - g) ** 2)",
        "((moved + g) ** 2)"),
    Mutation("warm-up-sign", "scd", "in the warm-up away from the teacher",
        "value - x0)",
        "x0 - value)"),
    Mutation("huber-zero", "distances", "iCT's pseudo-Huber without − c",
        "return square / ((square + c**2).sqrt() + c)",
        "return (square + c**2).sqrt()"),
    # Solvers and processes.
    Mutation("guidance", "teachers", "guidance w counted from ε_c, which is w + 1",
        "eps = without + guidance * (with_ - without)",
        "eps = with_ + guidance * (with_ - without)"),
    Mutation("ddim-sigma", "solvers", "DDIM with σ of the old time",
        "return teacher.process.diffuse(p.x0, p.eps, s)",
        "return expand(teacher.process.alpha(s), x) * p.x0 + expand(teacher.process.sigma(t), x) * p.eps"),
    Mutation("heun-time", "solvers", "Heun's second slope at the first time",
        "teacher.predict(guess, end, cond, w, **told).eps, end)",
        "teacher.predict(guess, t, cond, w).eps, t)"),
    Mutation("karras-grid", "processes", "Karras's grid without the outer power ρ",
        "(first + i / intervals * (last - first)) ** self.rho for i",
        "(first + i / intervals * (last - first)) for i"),
    Mutation("vp-skip", "processes", "c_skip without the square",
        "return 0.25 / (scaled**2 + 0.25),",
        "return 0.25 / (scaled + 0.25),"),
    Mutation("ve-boundary", "processes", "Karras's boundary at 0 for ε",
        "off, data = t - self.end, self.sigma_data",
        "off, data = t, self.sigma_data"),
    Mutation("ve-prior", "processes", "the noise of the first time is not scaled",
        "return self.start * noise",
        "return noise"),
    # Students, start points, sampling.
    Mutation("lora-start", "students", "LoRA's start within 1/√(all entries) for 1/√fan_in",
        "bound = p[0].numel() ** -0.5",
        "bound = p.numel() ** -0.5"),
    Mutation("start-times", "targets", "no start point at the last time above the end",
        "np.floor(u * self.intervals).astype(np.int64))\n        return",
        "np.floor(u * (self.intervals - 1)).astype(np.int64))\n        return"),
    Mutation("sampling-times", "times", "the last sampling step at the end itself",
        "round(i * (intervals / steps)) for i in range(steps)",
        "round(i * (intervals / max(steps - 1, 1))) for i in range(steps)"),
    Mutation("sampling-noise", "sampling", "all sampling steps have the same noise",
        "x.shape[1:], len(indices), n)",
        "x.shape[1:], len(indices))"),
    Mutation("epochs", "rng", "every epoch in the order of the first",
        "permutation(seed, purpose, n, epoch) for",
        "permutation(seed, purpose, n) for"),
    # Statistics.
    Mutation("frechet-factor", "frechet", "Fréchet without the factor 2",
        "np.sum(root2**2) - 2 * nuclear",
        "np.sum(root2**2) - nuclear"),
    Mutation("frechet-n", "frechet", "covariances over n for n − 1",
        "np.sqrt(features.shape[0] - 1)",
        "np.sqrt(features.shape[0])"),
    Mutation("kid-diagonal", "kernel", "KID counts its diagonal",
        "(_kernel_sum(features, features, kernel) - diagonal) / (n * (n - 1))",
        "_kernel_sum(features, features, kernel) / n**2"),
    Mutation("manifold-self", "manifold", "a row is its own first neighbour",
        "distances[here, start + here] = np.inf",
        "distances[here, start + here] = 0.0"),
    Mutation("ode-rows", "ode_error", "ODE error by place for row number",
        "order[np.searchsorted(teacher_rows[order], student_rows)]",
        "order"),
    Mutation("permutation-p", "inference", "a permutation's p without + 1",
        "return (1 + reached) / (1 + drawn)",
        "return reached / drawn"),
    Mutation("behrens-fisher", "inference", "the degrees of freedom of seeds and prompts change places",
        "return _tail(size, se_seeds, se_prompts, seeds - 1, n - 1)",
        "return _tail(size, se_seeds, se_prompts, n - 1, seeds - 1)"),
    Mutation("halves", "halves", "a distance's variance as if it were linear",
        "max(odd - even, self._kept**2 * even / 2)",
        "odd + even"),
    Mutation("bootstrap-p", "inference", "the bootstrap's p of one side for two",
        "p = min(1.0, 2 * (1 + tail) / (1 + resamples))",
        "p = min(1.0, (1 + tail) / (1 + resamples))"),
    Mutation("holm", "inference", "Holm without the running maximum",
        "adjusted = np.maximum.accumulate(np.arange(len(p), 0, -1) * np.asarray(p)[order]).clip(max=1.0)",
        "adjusted = (np.arange(len(p), 0, -1) * np.asarray(p)[order]).clip(max=1.0)"),
)
# fmt: on


def faulty(text: str, mutation: Mutation) -> str:
    """A file's text with the fault in it; a ValueError where the snippet is not there exactly once."""
    found = text.count(mutation.old)
    if found != 1:
        path = PLACES[mutation.place].path
        raise ValueError(
            f"{mutation.name}: {mutation.old!r} occurs {found} times in {path}; the fault has to follow the code"
        )
    return text.replace(mutation.old, mutation.new)


class Watch:
    """A plugin of pytest that keeps the first failure: an assertion in a test's body, or anything else."""

    def __init__(self) -> None:
        self.caught: str | None = None
        self.broken: str | None = None

    def pytest_exception_interact(self, node: Any, call: Any) -> None:
        if self.caught or self.broken:
            return
        if call.when == "call" and call.excinfo.errisinstance((AssertionError, pytest.fail.Exception)):
            self.caught = node.nodeid
        else:
            self.broken = f"{call.excinfo.type.__name__} in {call.when} of {node.nodeid}"


def _pytest(copy: Path, tests: Sequence[str], log: Path) -> dict[str, Any]:
    """In a process of its own: pytest on the copy, its output in `log`."""
    with open(log, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    here = [str(copy), str(copy / "src")]
    others = [p for p in sys.path if "site-packages" in p or not Path(p).absolute().is_relative_to(ROOT)]
    sys.path[:] = [*here, *others]
    os.chdir(copy)
    # What a test starts finds the copy as well. No bytecode: a fault of the same length, in the same second, would not be read.
    os.environ |= {"PYTHONPATH": os.pathsep.join(here), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    watch = Watch()
    # Not the repository's own options: no coverage.
    options = "-x -q -p no:cacheprovider --hypothesis-seed=0 --override-ini=addopts=--import-mode=importlib"
    code = pytest.main([*options.split(), *tests], plugins=[watch])
    package = sys.modules.get("directcm")
    if package is not None and not Path(str(package.__file__)).is_relative_to(copy):
        watch.broken = f"the package of {package.__file__} was tested, not the copy's"
    return {"code": int(code), "caught": watch.caught, "broken": watch.broken}


def run(copy: Path, tests: Sequence[str], log: Path) -> Outcome:
    """Run tests on the copy in a forked process, which has imported nothing of the project yet."""
    began, answer = time.perf_counter(), log.with_suffix(".json")
    answer.unlink(missing_ok=True)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(LIMIT)
            answer.write_text(json.dumps(_pytest(copy, tests, log)), encoding="utf-8")
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    seconds = time.perf_counter() - began
    if not answer.exists():
        return Outcome(None, None, "it did not end, or took pytest with it", seconds)
    return Outcome(**json.loads(answer.read_text(encoding="utf-8")), seconds=seconds)


def verdict(outcome: Outcome) -> tuple[bool, str]:
    """Whether a fault was caught, and by which test; or why not."""
    if outcome.broken is not None:
        return False, f"NOT FAIR: {outcome.broken}"
    if outcome.code == 1 and outcome.caught is not None:
        return True, outcome.caught
    return False, "SURVIVED" if outcome.code == 0 else f"NOT RUN: pytest ended with {outcome.code}"


def hunt(mutations: Sequence[Mutation], copy: Path, logs: Path, say: Callable[[str], None]) -> bool:
    """Whether all faults are caught; `copy` is whole again after each."""
    wanted = sorted({test for m in mutations for test in PLACES[m.place].tests})
    sound = run(copy, wanted, logs / "sound.log")
    if sound.code != 0 or sound.broken:
        say((logs / "sound.log").read_text(encoding="utf-8", errors="replace")[-4000:])
        say(f"Without a fault: {verdict(sound)[1]}. Nothing can be said of faults; mend the tests first.")
        return False
    say(f"Without a fault the tests pass ({sound.seconds:.0f} s).")
    widths = [max(len(getattr(m, key)) for m in mutations) for key in ("name", "fault")]
    caught = 0
    for m in mutations:
        path = copy / PLACES[m.place].path
        text = path.read_text(encoding="utf-8")
        path.write_text(faulty(text, m), encoding="utf-8")
        outcome = run(copy, PLACES[m.place].tests, logs / f"{m.name}.log")
        path.write_text(text, encoding="utf-8")
        good, by = verdict(outcome)
        caught += good
        say(f"{m.name:<{widths[0]}}  {m.fault:<{widths[1]}}  {outcome.seconds:5.1f} s  {by}")
        if outcome.broken:
            say((logs / f"{m.name}.log").read_text(encoding="utf-8", errors="replace")[-2000:])
    say(f"{caught} of {len(mutations)} caught")
    return caught == len(mutations)


def chosen(names: Iterable[str] | None, mutations: Sequence[Mutation] = MUTATIONS) -> list[Mutation]:
    """The faults of these names, None: all; a ValueError where one is not there."""
    known: Mapping[str, Mutation] = {m.name: m for m in mutations}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ValueError(f"no fault is called {', '.join(unknown)}; --list says which there are")
    return list(mutations) if names is None else [known[name] for name in names]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these faults alone")
    parser.add_argument("--list", action="store_true", help="what there is; runs nothing")
    options = parser.parse_args(argv)
    try:
        mutations = chosen(options.only)
        for m in MUTATIONS:
            faulty((ROOT / PLACES[m.place].path).read_text(encoding="utf-8"), m)
    except ValueError as error:
        print(f"mutations: {error}", file=sys.stderr)
        return 2
    if options.list:
        for m in mutations:
            print(f"{m.name:<18} {PLACES[m.place].path:<36} {m.fault}")
        return 0
    for name in WARM:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        copy, logs = Path(folder).resolve() / "copy", Path(folder).resolve() / "logs"
        logs.mkdir()
        copy_repository(copy)
        return 0 if hunt(mutations, copy, logs, lambda line: print(line, flush=True)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
