"""An SSH server of the test's own: this user, the loopback, keys made for it, everything in one folder."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from pathlib import Path

from tests.patience import PATIENCE, until


class Unavailable(Exception):
    """There is no SSH server to start."""


def answers(port: int) -> bool:
    """Whether something listens on a port of the loopback."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Server:
    """`home` has the .ssh that a user of this server would have: the host `store` with its port and key, and its host key."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers. Raises Unavailable where there is none or it does not come up."""
        # Debian puts it where only root's PATH looks.
        path = os.environ["PATH"] + os.pathsep + "/usr/sbin"
        sshd, keygen = shutil.which("sshd", path=path), shutil.which("ssh-keygen")
        if sshd is None or keygen is None:
            raise Unavailable("no sshd or ssh-keygen on this machine (Debian: apt-get install openssh-server)")
        settings = self.home / ".ssh"
        settings.mkdir(parents=True, mode=0o700)
        for key in (self.folder / "host_key", settings / "id_ed25519"):
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        if os.getuid() == 0:
            # Root's sshd wants this empty folder, which the package's own service makes when it starts.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        (self.folder / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1:{port}\n"
            f"HostKey {self.folder}/host_key\n"
            f"PidFile {self.folder}/sshd.pid\n"
            f"AuthorizedKeysFile {settings}/id_ed25519.pub\n"
            "PasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\n"
            "PermitRootLogin prohibit-password\n"
            "UsePAM no\n"
            "StrictModes no\n"
            "ForceCommand internal-sftp\n"
            "Subsystem sftp internal-sftp\n"
        )
        kind, public, *_ = (self.folder / "host_key.pub").read_text().split()
        (settings / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {public}\n")
        (settings / "config").write_text(
            f"Host store\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {settings}/id_ed25519\n"
        )
        with open(self.folder / "sshd.log", "wb") as log:
            self.process = subprocess.Popen(
                [sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")], stdin=subprocess.DEVNULL, stderr=log
            )
        until("sshd answers or ends", lambda: self.process.poll() is not None or answers(port))
        if self.process.poll() is not None:
            raise Unavailable(f"sshd did not come up: {(self.folder / 'sshd.log').read_text().strip()}")

    def stop(self) -> None:
        """End it; connections end with their clients."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(PATIENCE)
            self.process = None
