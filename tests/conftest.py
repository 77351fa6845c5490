"""One very small run of the whole core, made once per session: 40 digits, a teacher of a few steps, two students."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Before NumPy is imported: two workers of two BLAS threads each wait for one another on two cores.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"
# Jobs of two threads do not spin while one of them waits for a core.
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import csv
import functools
import gc
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import untraced
from tests.patience import PATIENCE

# Fixtures of the pipeline's runs, for tests in several folders: made once.
from tests.runs import repository, smoke  # noqa: F401

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
IMAGES = 40
SEED = 24
N = 5
W = 3.0
POOL = 16
ODE = {"solver": "ddim", "N": N, "w": W}
# Groups of tests that take minutes, in the order in which workers take them.
FIRST = ("smoke", "dvc", "slurm")

# No example of a generated test has a deadline, nor its making: a slow machine fails no test.
# In CI they are the same every time: what lands is what was tried.
settings.register_profile(
    "directcm",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="DIRECTCM_NO_SKIPS" in os.environ,
)
settings.load_profile("directcm")
untraced.install()


def pytest_configure(config: pytest.Config) -> None:
    """One thread: bytes are compared, and other work shares the machine."""
    import torch

    torch.set_num_threads(1)


def _group(item: pytest.Item) -> str:
    """Tests of one group run on one worker, one after another; a test without a group is one by itself."""
    marker = item.get_closest_marker("xdist_group")
    return str(marker.args[0]) if marker else item.nodeid


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What reads the smoke run is a group unless it says another: some of its tests edit the copy that it lies in."""
    for item in items:
        if "smoke" in getattr(item, "fixturenames", ()) and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group("smoke"))
    if hasattr(config, "workerinput"):
        # The long ones first, so that none is left alone at the end.
        long = ("pipeline", "slow")
        items.sort(
            key=lambda item: (
                FIRST.index(group) if (group := _group(item)) in FIRST else len(FIRST),
                next((i for i, name in enumerate(long) if item.get_closest_marker(name)), len(long)),
            )
        )
        table = Path(config.workerinput["groups"])
        own = table.with_name(config.workerinput["workerid"])
        own.write_text(json.dumps({item.nodeid: _group(item) for item in items}), encoding="utf-8")
        own.replace(table)


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection of garbage looks through it again, which takes half a second each time."""
    gc.collect()
    gc.freeze()


# For `-n`. xdist's own `--dist loadgroup` tells its scheduler by the ends of node ids, which pytest 9.2 does not let it write;
# so the workers write a table of the same marks.


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["groups"] = str(_tables(node.config) / "groups.json")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        @functools.cached_property
        def groups(self) -> dict[str, str]:
            return json.loads((_tables(config) / "groups.json").read_text(encoding="utf-8"))

        def _split_scope(self, nodeid: str) -> str:
            return self.groups[nodeid]

    config.option.loadscopereorder = False
    return Scheduling(config, log)


_FOLDER = pytest.StashKey[tempfile.TemporaryDirectory]()


def _tables(config: pytest.Config) -> Path:
    """A folder that ends with the controller."""
    if _FOLDER not in config.stash:
        config.stash[_FOLDER] = tempfile.TemporaryDirectory(prefix="directcm-tests-")
        config.add_cleanup(config.stash[_FOLDER].cleanup)
    return Path(config.stash[_FOLDER].name)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where all tests can run (CI), a skipped one is a failure."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if os.environ.get("DIRECTCM_NO_SKIPS") and skipped:
        reporter.write_line(f"ERROR: {len(skipped)} test(s) skipped where none may be: {skipped[0].nodeid}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def write_folder(folder: Path, count: int = IMAGES, side: int = 16) -> Path:
    """A folder data set of scikit-learn's digits with a metadata.csv."""
    from PIL import Image
    from sklearn.datasets import load_digits

    folder.mkdir(parents=True)
    bunch = load_digits()
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text"])
        for i in range(count):
            grey = (bunch.images[i] * (255 / 16)).round().astype("uint8")
            Image.fromarray(grey).resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{i:02d}.png")
            writer.writerow([f"{i:02d}.png", f"a handwritten digit {WORDS[bunch.target[i]]}"])
    return folder


@pytest.fixture(scope="session")
def digit_folder() -> Any:
    """The writer above, for tests that need a folder data set of their own."""
    return write_folder


class Browser:
    """Chromium whose pages wait as long as it takes."""

    def __init__(self, running: Any) -> None:
        self.running = running

    def new_context(self, **options: Any) -> Any:
        context = self.running.new_context(**options)
        context.set_default_timeout(1000 * PATIENCE)
        return context

    def new_page(self, **options: Any) -> Any:
        page = self.running.new_page(**options)
        page.set_default_timeout(1000 * PATIENCE)
        return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; a test that needs it is skipped where there is none, which CI counts as a failure."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    quiet = [
        "--no-sandbox",
        "--disable-gpu",
        *(f"--disable-{n}" for n in ("background-networking", "component-update", "sync")),
    ]
    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=chromium, args=quiet, timeout=1000 * PATIENCE)
        yield Browser(running)
        running.close()


def one_line(error: Any) -> str:
    """The message of a UserError, checked to be one line of text."""
    text = str(error.value)
    assert text and len(text.splitlines()) == 1, text
    return text


@pytest.fixture(scope="session", name="one_line")
def _one_line() -> Any:
    return one_line


class Tiny(SimpleNamespace):
    """Artefacts (data, teacher, latents, noise, targets, cm, direct_cm, reference, samples) and the settings behind them.

    `reference` are the teacher's two shards, `samples` is the finished Direct CM in one step.
    """

    def student_run(self, method: str, **changes: Any) -> Any:
        """The run of a student."""
        from directcm.config import Run

        own = {"adapter": "lora4", "loss": "mse", "lr": 1e-3, "batch_size": 4, "pool": POOL, "steps": 4, "seed": 0}
        return Run(**{"method": method, **ODE, **own, **changes})

    def train(
        self, out: Path, method: str, *, scratch: Path | None = None, snapshots: Sequence[int] = (), **changes: Any
    ) -> Any:
        """Train a student; settings of `config.Train` may be among the changes."""
        from directcm.config import Train
        from directcm.distill import training
        from directcm.runtime.artifacts import open_artifact

        settings = {
            k: changes.pop(k)
            for k in list(changes)
            if k in ("checkpoint_every", "precision", "gradient_checkpointing", "micro_batch")
        }
        targets = changes.pop("targets", self.targets if method == "direct_cm" else [])
        labels = changes.pop("label_student", None)
        training.make(
            self.student_run(method, **changes),
            Train(**{"checkpoint_every": 2, **settings}),
            snapshots,
            self.teacher,
            self.latents,
            targets,
            SEED,
            scratch or out.with_name(out.name + "-scratch"),
            None,
            out,
            labels=labels,
        )
        return open_artifact(out, "student")

    def solve(self, out: Path, number: int = 0, *, scratch: Path | None = None, **changes: Any) -> Any:
        """Solve one shard of targets; settings of `config.Targets`, solver, N, w and seed may change."""
        from directcm.config import Ode
        from directcm.distill import targets
        from directcm.runtime.artifacts import open_artifact

        seed, first_step = changes.pop("seed", SEED), changes.pop("first_step", False)
        ode = Ode(**ODE | {k: changes.pop(k) for k in list(changes) if k in ODE})
        settings = self.targets_settings.model_copy(update=changes)
        targets.make(
            settings,
            ode,
            number,
            self.teacher,
            self.latents,
            seed,
            "cpu",
            "no",
            scratch or out.with_name(out.name + "-scratch"),
            out,
            first_step=first_step,
        )
        return open_artifact(out, "targets")

    def solve_errors(self, out: Path, solver: str = "ddim", intervals: int = N, number: int = 0, **changes: Any) -> Any:
        """Solve one shard of the start points of the errors by start time; settings of `config.Errors`, w and seed may change."""
        from directcm.config import Ode
        from directcm.evaluation import endpoints
        from directcm.runtime.artifacts import open_artifact

        own = {"w": W, "seed": SEED, "batch_size": 4, "teacher": self.teacher}
        own |= {k: changes.pop(k) for k in list(changes) if k in own}
        endpoints.make(
            self.errors_settings.model_copy(update=changes),
            Ode(solver=solver, N=intervals, w=own["w"]),
            number,
            own["batch_size"],
            own["teacher"],
            self.latents,
            own["seed"],
            "cpu",
            "no",
            out.with_name(out.name + "-scratch"),
            out,
        )
        return open_artifact(out, "endpoints")

    def evaluated(self, **changes: Any) -> Any:
        """What sampling reads; settings of `config.Evaluation` and the noise may change."""
        from directcm.evaluation import sampling

        noise = changes.pop("noise", self.noise)
        settings = self.evaluation.model_copy(update=changes)
        return sampling.Evaluated(settings, self.teacher, self.latents, noise, SEED, "cpu")

    def sample(self, out: Path, shard: int = 0, shards: int = 1, *, scratch: Path | None = None, **changes: Any) -> Any:
        """Sample a shard of the teacher's."""
        from directcm.config import Ode
        from directcm.evaluation import sampling
        from directcm.runtime.artifacts import open_artifact

        scratch = scratch or out.with_name(out.name + "-scratch")
        sampling.sample_teacher(self.evaluated(**changes), Ode(**ODE), shard, shards, scratch, out)
        return open_artifact(out, "samples")

    def sample_sets(
        self, out: Path, student: Any, sets: Sequence[tuple[int, int]], *, scratch: Path | None = None, **changes: Any
    ) -> dict[str, Any]:
        """Sample a student's sets (optimiser step, sampling steps); the collection's parts."""
        from directcm.config import Ode
        from directcm.evaluation import sampling
        from directcm.runtime.artifacts import open_collection

        scratch = scratch or out.with_name(out.name + "-scratch")
        sampling.sample_students(self.evaluated(**changes), Ode(**ODE), student, sets, scratch, out)
        return open_collection(out, "samples")

    def sample_student(self, out: Path, student: Any, steps: int, **changes: Any) -> Any:
        """Sample the finished student in so many steps; its part of the collection."""
        parts = self.sample_sets(out, student, [(student.run.steps, steps)], **changes)
        (only,) = parts.values()
        return only


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The small run. Read only: write elsewhere."""
    from directcm import datasets
    from directcm.config import Data, Encode, Errors, Evaluation, MicroSdxl, Process, Targets
    from directcm.diffusion.teachers import micro_sdxl
    from directcm.distill import encode, noise
    from directcm.runtime.artifacts import open_artifact

    root = tmp_path_factory.mktemp("tiny")
    t = Tiny(root=root, seed=SEED, N=N, w=W, images=IMAGES)
    t.data_settings = Data(kind="folder", path=str(write_folder(root / "source")), resolution=16)
    datasets.make(t.data_settings, SEED, root / "data")
    t.data = open_artifact(root / "data", "data")
    t.micro = MicroSdxl.model_validate(
        {
            "vae": {"channels": [16, 32], "steps": 6, "batch_size": 8},
            "text": {"width": 16, "layers": 2, "length": 8},
            "unet": {"channels": [16, 32], "steps": 6, "batch_size": 8},
        }
    )
    t.process = Process()
    micro_sdxl.make(t.micro, t.process, t.data, SEED, root / "scratch" / "teacher", root / "teacher")
    t.teacher = open_artifact(root / "teacher", "teacher")
    encode.make(
        Encode(batch_size=16), t.teacher, t.data, SEED, "cpu", "no", root / "scratch" / "encode", root / "latents"
    )
    t.latents = open_artifact(root / "latents", "latents")
    noise.make(6, "evaluation", t.data, t.latents, SEED, root / "noise")
    t.noise = open_artifact(root / "noise", "noise")
    t.targets_settings = Targets(shard=8, block=4, batch_size=4)
    t.errors_settings = Errors.model_validate(
        {"times": 5, "points": 3, "shard": 8, "block": 4, "refined": {"solver": "edm_heun", "N": 10}}
    )
    t.targets = [t.solve(root / "targets" / str(i), i) for i in range(2)]
    t.cm = t.train(root / "cm", "cm")
    t.direct_cm = t.train(root / "direct_cm", "direct_cm")
    t.evaluation = Evaluation(samples=6, steps=[1], shards=2, block=3, batch_size=2)
    t.reference = [t.sample(root / "reference" / str(i), shard=i, shards=2) for i in range(2)]
    t.samples = t.sample_student(root / "samples", t.direct_cm, 1)
    return t
