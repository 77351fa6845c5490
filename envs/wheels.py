#!/usr/bin/env python3
"""Fill a folder with the locked wheels of this Python and platform, for machines without a network.

    make wheels                 # wheels/; what tests and lint add too: make wheels DEV=1
    WHEELS=wheels make install  # there, with the folder beside this project

What has no wheel is built here, by the locked setuptools. The folder's lock.txt (and lock-dev.txt) names each file and its
sha256, and of which lock and Python it is; `envs/install.py --wheels` takes nothing else. Runs in the installed environment.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from install import LOCK, LOCK_DEV, LOCK_UV, normal, sha256, tag


def pip(*words: str) -> None:
    """Run pip."""
    # A constraint file of the user's can only disagree with the lock.
    env = {**os.environ, "PIP_CONSTRAINT": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = [sys.executable, "-I", "-m", "pip", words[0], "--quiet", "--no-deps", "--no-build-isolation", *words[1:]]
    done = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise Failed((done.stdout + done.stderr).strip())


class Failed(Exception):
    """pip's output, where it failed."""


def fetch(lock: Path, folder: Path) -> list[Path]:
    """The wheels of a lock for this machine, now in the folder."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="new-") as new:
        # What is in the folder already is not fetched again: its hash tells.
        pip("download", "--require-hashes", "--find-links", str(folder), "--dest", new, "--requirement", str(lock))
        for source in [f for f in Path(new).iterdir() if f.suffix != ".whl"]:
            pip("wheel", "--no-index", "--wheel-dir", new, str(source))
            source.unlink()
        names = sorted(file.name for file in Path(new).iterdir())
        for name in names:
            os.replace(Path(new, name), folder / name)
    return [folder / name for name in names]


def write(lock: Path, folder: Path, files: list[Path]) -> None:
    """The folder's own lock: of each package the file and its sha256."""
    lines = [f"# Made by `make wheels`.\n# lock: {sha256(lock)}\n# python: {tag()}\n"]
    for file in files:
        name, version = file.name.split("-")[:2]
        lines.append(f"{normal(name)}=={version} --hash=sha256:{sha256(file)}  # {file.name}\n")
    new = folder / f"{lock.name}.new"
    new.write_text("".join(lines), encoding="utf-8")
    os.replace(new, folder / lock.name)


def main() -> int:
    """The command line; 2 where a user can put it right."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--dev", action="store_true", help="what tests and lint add, too")
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    folder = args.folder.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob("new-*"):  # of a call that was killed
            shutil.rmtree(left)
        print(f"wheels: into {folder} (some minutes, once) …", file=sys.stderr)
        try:
            fetch(LOCK_UV, folder)
        except Failed:
            print(
                "wheels: uv cannot be had here; from this folder pip will install, which takes longer", file=sys.stderr
            )
        files: list[Path] = []
        for lock in (LOCK, LOCK_DEV) if args.dev else (LOCK,):
            fetched = fetch(lock, folder)
            write(lock, folder, fetched)
            files += fetched
    except Failed as said:
        print(said, file=sys.stderr)
        print(
            "wheels: pip could not do it (above); what it has fetched is in its cache: call it again", file=sys.stderr
        )
        return 2
    size = sum(f.stat().st_size for f in files) / 1e9
    print(
        f"wheels: {len(files)}, {size:.1f} GB, for Python {tag()}. Where there is no network: make reproduce WHEELS={args.folder}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
