"""What the tests of DVC have in common: a clone's `make`, edits of a configuration, commits."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.runs import Run, make_run


def ok(done: subprocess.CompletedProcess[str]) -> str:
    """What a command printed; it must have succeeded."""
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-3000:]
    return done.stdout + done.stderr


def installed(folder: Path) -> Run:
    """A folder in which `make` installs nothing, and takes this environment, which is first on PATH."""
    run = make_run(folder)

    def with_this(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return run(*(("make", "-o", "install") if command[0] == "make" else command[:1]), *command[1:], **options)

    return with_this


def commit(run: Run, message: str) -> None:
    """Commit everything, with the message as a tag."""
    ok(run("git", "add", "--all"))
    ok(run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "--quiet", "--message", message))
    ok(run("git", "tag", message))


def _lay(over: Any, changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(over.get(name), dict):
            _lay(over[name], value)
        else:
            over[name] = value


def change(folder: Path, changes: dict[str, Any], file: str = "config.yaml") -> None:
    """Edit a folder's configuration as a user would: comments and quotes stay."""
    edited = YAML()
    edited.preserve_quotes, edited.width = True, 1000
    content = edited.load(folder / file)
    _lay(content, changes)
    edited.dump(content, folder / file)
