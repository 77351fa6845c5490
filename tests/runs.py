"""The real pipeline in a copy of the repository: real Snakemake, real processes, the smoke preset."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import starts
from tests.patience import PATIENCE

ROOT = Path(__file__).resolve().parents[1]
# Left behind in shells, notebooks and by other programs' launchers; each is read by something that a verb imports.
HOSTILE = {
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
    "ACCELERATE_MIXED_PRECISION": "bf16",
    "ACCELERATE_USE_FSDP": "true",
    "ATEN_CPU_CAPABILITY": "default",
    "DIFFUSERS_ATTN_BACKEND": "flex",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "nowhere.invalid",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "RANK": "1",
    "SLURM_JOB_ID": "77",
    "USE_TORCH": "0",
    "WORLD_SIZE": "2",
}
SMOKE = ["--configfile", "workflow/presets/smoke.yaml"]
Run = Callable[..., subprocess.CompletedProcess[str]]


def copy_repository(to: Path) -> Path:
    """What git tracks or would track, as it stands in the working tree."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        source, target = ROOT / name, to / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    return to


def make_run(folder: Path) -> Run:
    """Runs a program of this environment in a folder, with that folder's own package before the installed one."""
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "XDG_CACHE_HOME": str(folder / ".cache"),
    }
    # A variable of the surrounding run would send the inner one's coverage or profile elsewhere.
    for name in [n for n in environment if n.startswith(("COV_", "COVERAGE_", "SNAKEMAKE_"))]:
        del environment[name]

    def run(*command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        # With variables that may be read while it is imported it starts by itself.
        if command[0] == "snakemake" and not variables:
            return starts.snakemake(command, folder, environment, PATIENCE)
        return subprocess.run(
            command,
            cwd=folder,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    return run


def planned(output: str) -> dict[str, int]:
    """Rule → number of jobs, from the table that `snakemake -n` prints; empty where nothing is to be done."""
    jobs: dict[str, int] = {}
    lines = iter(output.splitlines())
    for line in lines:
        if line.startswith("Job stats:"):
            next(lines)
            next(lines)
            for row in lines:
                if not row.strip():
                    break
                name, count = row.split()
                jobs[name] = int(count)
            break
    jobs.pop("total", None)
    jobs.pop("all", None)
    jobs.pop("paper", None)
    return jobs


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills once for all workers of a test run: the first that needs it, while the others wait."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, said = root / name, root / f"{name}.said"
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            try:
                make(folder)
                said.touch()
            except BaseException as error:
                said.write_text(str(error) or repr(error))
                raise
    assert not said.read_text(), f"{name} could not be made: {said.read_text()}"
    return folder


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which nothing has run."""
    return copy_repository(tmp_path_factory.mktemp("repository"))


def _run_smoke(folder: Path) -> None:
    copy_repository(folder)
    run = make_run(folder)
    # As `make` starts it, from a shell full of variables; that jobs which start by themselves, in a clean one, give the same bytes is
    # shown on SLURM.
    for target, log in (([], "main.log"), (["paper"], "paper.log")):
        done = run("snakemake", *target, "--cores", "2", *SMOKE, **HOSTILE)
        assert done.returncode == 0, done.stderr[-5000:] + done.stdout[-2000:]
        (folder / log).write_text(done.stderr + done.stdout)
    report = run("snakemake", "paper", "--quiet", "all", "--report", "report.html", *SMOKE)
    assert report.returncode == 0, report.stderr[-5000:]


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which the smoke preset has run to its end: the main comparison first, then everything; report included.

    Its tests are a group, for some edit its sources or run in it. A test of another group may read what lies in results/.
    """
    return once(tmp_path_factory, "smoke", _run_smoke)
