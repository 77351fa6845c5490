"""The test cluster, and the repository's own profile pointed at it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, Unavailable

# What only a test cluster wants: no accounting, and a look at the queue after a second instead of 40, and then every second.
HERE = [
    "--slurm-no-account",
    "--slurm-status-command",
    "squeue",
    "--slurm-init-seconds-before-status-checks",
    "1",
    "--slurm-keep-successful-logs",
]
SNAKEMAKE = (sys.executable, "-P", str(Path(__file__).with_name("often.py")))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes and a GPU on the loopback; a test that needs them is skipped where there is no SLURM, which CI counts as a failure."""
    found = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        found.start()
    except Unavailable as error:
        pytest.skip(f"no test cluster: {error}")
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
def slurm(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, with every node up and SLURM's commands of this process pointed at it."""
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    for node in cluster.nodes:
        if node not in cluster.daemons:
            cluster.start_node(node)
    yield cluster
    cluster.run("scancel", "--user", str(os.getuid()), check=False)


def profile(folder: Path) -> list[str]:
    """The flags of a run on the test cluster: the profile as it lies in the repository."""
    assert (folder / "slurm/config.yaml").is_file()
    return ["--profile", "slurm", *HERE]
