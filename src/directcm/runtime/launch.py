"""The verb `launch`: another verb as several processes that train together, by `accelerate launch`.

    directcm launch --processes 4 -- train …               # on this machine, or on the one node of a SLURM job
    directcm launch --processes 8 --nodes 2 -- train …     # in a SLURM job of two nodes

Over several nodes it first starts itself once on each with `srun`; every node then starts its share of the processes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from directcm.errors import UserError
from directcm.runtime.environment import LAUNCHED


def share(processes: int, nodes: int) -> int:
    """Processes per node; a UserError where they do not spread evenly."""
    if processes < 1 or nodes < 1 or processes % nodes:
        raise UserError(f"launch: {processes} processes do not spread evenly over {nodes} nodes")
    return processes // nodes


def srun(processes: int, nodes: int, argv: Sequence[str]) -> list[str]:
    """The command that starts this verb once on each node of the job."""
    each = f"--nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --cpu-bind=none --kill-on-bad-exit=1".split()
    again = ["launch", "--processes", str(processes), "--nodes", str(nodes), "--", *argv]
    return ["srun", *each, sys.executable, "-m", "directcm.cli", *again]


def accelerate(processes: int, nodes: int, argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The launch line of this node's processes, from the allocation that SLURM's variables tell of.

    Its first node is the one that the job's script runs on, which is where `srun` is started.
    """
    port = 0
    where: list[str] = []
    if nodes > 1:
        try:
            job, rank, address = (
                environment[name] for name in ("SLURM_JOB_ID", "SLURM_NODEID", "SLURM_LAUNCH_NODE_IPADDR")
            )
        except KeyError as error:
            raise UserError(
                f"launch: --nodes {nodes}, but {error.args[0]} is not set: several nodes need a SLURM job"
            ) from None
        # Below the ports that the kernel hands out; two jobs that share a node differ in it.
        port = 10000 + int(job) % 20000
        where = ["--machine_rank", rank, "--main_process_ip", address]
    options = ["--num_processes", str(processes), "--num_machines", str(nodes), *where]
    options += ["--main_process_port", str(port), "--num_cpu_threads_per_process", "1"]
    options += ["--mixed_precision", "no", "--dynamo_backend", "no"]
    # "multi_gpu" is what accelerate calls torch's launcher; on CPUs its processes talk by gloo.
    return [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", *options, "-m", "directcm.cli", *argv]


def launch(processes: int, nodes: int, argv: Sequence[str]) -> None:
    """Become the launcher of `directcm ARGV` in `processes` processes over `nodes` nodes; does not return."""
    each = share(processes, nodes)
    environment = dict(os.environ)
    if nodes > 1 and "SLURM_NODEID" not in environment:
        if "SLURM_JOB_ID" not in environment:
            raise UserError(f"launch: --nodes {nodes} needs a SLURM job")
        command = srun(processes, nodes, argv)
    else:
        import torch

        if not torch.cuda.is_available():
            environment["ACCELERATE_USE_CPU"] = "true"
        elif torch.cuda.device_count() < each:
            raise UserError(
                f"launch: {each} processes a node, but this one has {torch.cuda.device_count()} GPUs; ask for as many"
            )
        command = accelerate(processes, nodes, argv, environment)
        environment[LAUNCHED] = "1"
    os.execvpe(command[0], command, environment)
