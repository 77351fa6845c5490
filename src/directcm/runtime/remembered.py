"""SHA-256 of large files, remembered on this machine, so that not every job reads gigabytes of weights to verify them.

A digest counts as long as the file's path, device, inode, size and time of change (nanoseconds) are those with which it was
computed. It lies in $XDG_CACHE_HOME/directcm/digests/<host> (~/.cache without it): one small file a digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import time
from pathlib import Path

from directcm.runtime.artifacts import sha256

# Smaller ones are read in a moment.
LARGE = 32 * 2**20
# A file changed within so many seconds before it was read may change again without another time of change.
SETTLED = 2.0


def folder() -> Path:
    """Where this machine's digests lie."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "directcm" / "digests" / socket.gethostname()


def digest(path: Path) -> str:
    """The file's SHA-256 in hexadecimal digits: remembered, or computed from its bytes."""
    path = path.resolve()
    seen = _seen(path)
    if int(seen["size"]) < LARGE:
        return sha256(path)
    kept = folder() / f"{hashlib.blake2b(str(path).encode(), digest_size=16).hexdigest()}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        found = json.loads(kept.read_text())
        if {**found, "sha256": None} == {**seen, "sha256": None} and len(bytes.fromhex(found["sha256"])) == 32:
            return str(found["sha256"])
    value = sha256(path)
    if _seen(path) == seen and time.time() - max(int(seen["mtime"]), int(seen["ctime"])) / 1e9 > SETTLED:
        # Without a place to keep it the next job computes it again.
        with contextlib.suppress(OSError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(f".{os.getpid()}")
            part.write_text(json.dumps({**seen, "sha256": value}))
            part.replace(kept)
    return value


def _seen(path: Path) -> dict[str, int | str]:
    stat = path.stat()
    return {
        "path": str(path),
        "device": stat.st_dev,
        "inode": stat.st_ino,
        "size": stat.st_size,
        "mtime": stat.st_mtime_ns,
        "ctime": stat.st_ctime_ns,
    }
