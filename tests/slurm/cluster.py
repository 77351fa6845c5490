"""A SLURM cluster of its own on the loopback: munged, slurmctld and slurmd in a folder, on ports of their own.

    python -m tests.slurm.cluster start FOLDER    # prints the variable that points SLURM's commands at it
    python -m tests.slurm.cluster stop FOLDER

Nothing of it is shared with an installed cluster: key, sockets, ports, spool and configuration are new, and every command
is sent there by SLURM_CONF. It refuses to start where SLURM_CONF already names a cluster, or inside a job.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.patience import PATIENCE, until

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
PARTITIONS = {"cpu": ["node1", "node2"], "gpu": ["node1", "node2"]}
# Two fake GPUs each; a device belongs to one node alone, and these are there everywhere.
GRES = {"node1": ("/dev/null", "/dev/zero"), "node2": ("/dev/full", "/dev/random")}
# More than there is: most of a small job is waiting for SLURM and Snakemake to look.
CPUS, MEMORY = 4, 16000


class Unavailable(Exception):
    """No test cluster can be started here; the text says why and what would help."""


def program(name: str) -> str:
    """The path of one of SLURM's programs; some lie in sbin, which is not on everyone's PATH."""
    found = shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))
    if found is None:
        raise Unavailable(f"{name} is not installed; on Debian: apt-get install slurm-wlm munge")
    return found


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on just now."""
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


def processes(number: str, *words: str) -> list[int]:
    """A job's processes, those with these words among their arguments."""
    variable, found = f"SLURM_JOB_ID={number}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if variable in (process / "environ").read_bytes().split(b"\0"):
                arguments = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if all(word in arguments for word in words):
                    found.append(int(process.name))
        except OSError:
            continue
    return found


def kill_job(number: str) -> None:
    """End every process of a job with -9: the steps' daemons first, which would clean up and report."""
    step = f"slurmstepd: [{number}.".encode()
    daemons = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cmdline").read_bytes().startswith(step):
                daemons.append(int(process.name))
    for pid in [*daemons, *processes(number)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _fields(text: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in text.split() if "=" in word)


@dataclass
class Cluster:
    """A running cluster in `folder`; `environment` points SLURM's commands at it."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def nodes(self) -> list[str]:
        return PARTITIONS["cpu"]

    @property
    def conf(self) -> Path:
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """SLURM_CONF, and a PATH whose SLURM commands set it again: Snakemake's job step clears the variable before its srun."""
        return {
            "SLURM_CONF": str(self.conf),
            "PATH": os.pathsep.join((str(self.folder / "bin"), os.environ.get("PATH", ""))),
        }

    def run(self, *command: str, check: bool = True) -> str:
        """What one of SLURM's commands prints."""
        done = subprocess.run(
            [program(command[0]), *command[1:]],
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def log(self, name: str) -> str:
        """A daemon's log."""
        path = self.folder / "log" / f"{name}.log"
        return path.read_text(errors="replace") if path.is_file() else ""

    def _start(self, name: str, command: Sequence[str]) -> None:
        with open(self.folder / "log" / f"{name}.out", "ab") as out:
            self.daemons[name] = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        (self.folder / "run" / f"{name}.started").write_text(str(self.daemons[name].pid))

    def _wait(self, name: str, done: Callable[[], bool]) -> None:
        """Until a daemon that was started does what it is for; Unavailable where it ended instead."""
        daemon = self.daemons[name]
        until(f"{name} is up", lambda: daemon.poll() is not None or done())
        if daemon.poll() is not None:
            raise Unavailable(f"{name} ended with status {daemon.returncode}")

    def start_node(self, node: str) -> None:
        """Start a node's slurmd and wait until it takes jobs."""
        self._start(node, [program("slurmd"), "-D", "-N", node, "-f", str(self.conf)])
        self._wait(node, lambda: self.state(node) in ("IDLE", "MIXED", "ALLOCATED"))

    def kill_node(self, node: str) -> None:
        """End a node's slurmd and everything of its jobs with -9, as when a node loses power, and let SLURM know.

        By itself it would notice after SlurmdTimeout, which is long here: a node of a slow machine is not a dead one.
        """
        jobs = self.run("squeue", "--noheader", "--nodelist", node, "--format", "%A").split()
        daemon = self.daemons.pop(node)
        daemon.kill()
        daemon.wait()
        for number in jobs:
            kill_job(number)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=killed")

    def state(self, node: str) -> str:
        """A node's state, such as IDLE or DOWN."""
        text = self.run("scontrol", "show", "node", node, check=False)
        for word in text.split():
            if word.startswith("State="):
                return word[6:].split("+")[0].rstrip("*")
        return ""

    def job(self, number: str | int) -> dict[str, str]:
        """A job's fields as `scontrol show job` names them; empty where SLURM has forgotten it."""
        return _fields(self.run("scontrol", "show", "job", "--details", str(number), check=False))

    def jobs(self) -> list[dict[str, str]]:
        """All jobs that SLURM remembers, tasks of arrays one by one, in the order of their submission."""
        lines = self.run("scontrol", "show", "jobs", "--details", "--oneliner", check=False).splitlines()
        found = [fields for line in lines if "JobId" in (fields := _fields(line))]
        return sorted(found, key=lambda fields: int(fields["JobId"]))

    def start(self) -> Cluster:
        """Start every daemon; an Unavailable that says why not."""
        if os.environ.get("SLURM_CONF") or os.environ.get("SLURM_JOB_ID"):
            raise Unavailable(
                "SLURM_CONF or SLURM_JOB_ID is set: this is a real cluster's machine, which is left alone"
            )
        for name in PROGRAMS:
            program(name)
        for name in ("run", "log", "state", "spool", "bin"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for name in PROGRAMS[3:]:
            wrapper = self.folder / "bin" / name
            wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={shlex.quote(str(self.conf))} exec {program(name)} "$@"\n')
            wrapper.chmod(0o755)
        # munge wants its folders closed to others.
        os.chmod(self.folder, 0o755)
        keys = self.folder / "munge"
        keys.mkdir(mode=0o700, exist_ok=True)
        key = keys / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        (self.folder / "run").chmod(0o755)
        self._configure()
        self._start(
            "munged",
            [
                program("munged"),
                "--foreground",
                "--force",
                f"--key-file={key}",
                f"--socket={self.folder / 'run' / 'munge.socket'}",
                f"--pid-file={self.folder / 'run' / 'munged.pid'}",
                f"--log-file={self.folder / 'log' / 'munged.log'}",
                f"--seed-file={keys / 'munged.seed'}",
            ],
        )
        try:
            self._wait("munged", (self.folder / "run" / "munge.socket").exists)
            self._start("slurmctld", [program("slurmctld"), "-D", "-i", "-f", str(self.conf)])
            self._wait("slurmctld", lambda: "UP" in self.run("scontrol", "ping", check=False))
            for node in PARTITIONS["cpu"]:
                self.start_node(node)
        except Unavailable as error:
            told = {name: tail for name in self.daemons if (tail := (self.log(name) or self._out(name)).strip()[-600:])}
            self.stop()
            raise Unavailable(f"{error}; {told}") from None
        return self

    def _out(self, name: str) -> str:
        path = self.folder / "log" / f"{name}.out"
        return path.read_text(errors="replace") if path.is_file() else ""

    def _configure(self) -> None:
        controller, *nodes = free_ports(1 + len(PARTITIONS["cpu"]))
        f = self.folder
        lines = [
            "ClusterName=directcm-test",
            # By address: the loopback needs no name service.
            f"SlurmctldHost={socket.gethostname()}(127.0.0.1)",
            f"SlurmctldPort={controller}",
            f"SlurmUser={getpass.getuser()}",
            f"SlurmdUser={getpass.getuser()}",
            "AuthType=auth/munge",
            f"AuthInfo=socket={f / 'run' / 'munge.socket'}",
            "CredType=cred/munge",
            f"StateSaveLocation={f / 'state'}",
            f"SlurmdSpoolDir={f / 'spool'}/%n",
            f"SlurmctldPidFile={f / 'run' / 'slurmctld.pid'}",
            f"SlurmdPidFile={f / 'run'}/%n.pid",
            f"SlurmctldLogFile={f / 'log' / 'slurmctld.log'}",
            f"SlurmdLogFile={f / 'log'}/%n.log",
            "SwitchType=switch/none",
            "MpiDefault=none",
            "ProctrackType=proctrack/linuxproc",
            "SlurmdParameters=config_overrides",
            "TaskPlugin=task/none",
            "SelectType=select/cons_tres",
            "SelectTypeParameters=CR_Core_Memory",
            "SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0",
            "GresTypes=gpu",
            "AccountingStorageType=accounting_storage/none",
            "JobAcctGatherType=jobacct_gather/none",
            "JobCompType=jobcomp/none",
            "ReturnToService=2",
            # A slow machine is neither a dead node nor a lost message.
            "SlurmdTimeout=3600",
            "BatchStartTimeout=3600",
            "MessageTimeout=90",
            "TCPTimeout=60",
            "KillWait=3",
            "MinJobAge=86400",
            "JobRequeue=1",
            "PreemptType=preempt/partition_prio",
            "PreemptMode=REQUEUE",
        ]
        for name, port in zip(PARTITIONS["cpu"], nodes, strict=True):
            gres = f" Gres=gpu:h100:{len(GRES[name])}" if name in GRES else ""
            lines.append(
                f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} "
                f"CPUs={CPUS} RealMemory={MEMORY}{gres} State=UNKNOWN"
            )
        for name, members in PARTITIONS.items():
            default = "YES" if name == "cpu" else "NO"
            lines.append(
                f"PartitionName={name} Nodes={','.join(members)} Default={default} MaxTime=INFINITE State=UP "
                f"PriorityTier=1 GraceTime=30 OverSubscribe=NO"
            )
        self.conf.write_text("\n".join(lines) + "\n")
        gres = [f"NodeName={n} Name=gpu Type=h100 File={device}" for n, devices in GRES.items() for device in devices]
        (f / "gres.conf").write_text("\n".join(gres) + "\n")

    def stop(self) -> None:
        """End every daemon, and what their jobs left running."""
        controller = self.daemons.get("slurmctld")
        if controller is not None and controller.poll() is None:
            self.run("scancel", "--user", getpass.getuser(), check=False)
        for name in reversed(list(self.daemons)):
            daemon = self.daemons.pop(name)
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def main(argv: Sequence[str]) -> int:
    verb, folder = argv
    cluster = Cluster(Path(folder).resolve())
    if verb == "start":
        try:
            cluster.start()
        except Unavailable as error:
            print(error, file=sys.stderr)
            return 2
        for name, value in cluster.environment.items():
            print(f"export {name}={shlex.quote(value)}")
        return 0
    for path in sorted((cluster.folder / "run").glob("*.started")):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(path.read_text()), signal.SIGTERM)
        path.unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
