#!/usr/bin/env python3
"""Run these tests on a worktree of an earlier commit, where each has to fail: a test that passes there shows nothing.

    python tests/outside/before.py            # 9829fa5, which issue 15 was written about
    python tests/outside/before.py COMMIT -k tables

Of a parametrised or generated test it is enough that one case fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]


def main() -> int:
    """Exit code 0 where every test fails at the commit, 1 where one passes."""
    arguments = sys.argv[1:]
    commit = arguments.pop(0) if arguments and not arguments[0].startswith("-") else "9829fa5"
    with tempfile.TemporaryDirectory(prefix="directcm-before-") as made:
        worktree = Path(made) / "worktree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(worktree), commit], cwd=TOP, check=True)
        try:
            shutil.copytree(HERE, worktree / "tests/outside", ignore=shutil.ignore_patterns("__pycache__"))
            # What they are run with is today's; what they test is not.
            for name in ("conftest.py", "patience.py", "runs.py"):
                shutil.copy(TOP / "tests" / name, worktree / "tests" / name)
            shutil.copy(TOP / "pyproject.toml", worktree / "pyproject.toml")
            environment = {**os.environ, "PYTHONPATH": str(worktree / "src")}
            command = [sys.executable, "-m", "pytest", "tests/outside", "--no-cov", "-p", "no:cacheprovider", "-rA"]
            done = subprocess.run([*command, *arguments], cwd=worktree, env=environment, capture_output=True, text=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(worktree)], cwd=TOP, check=True)
    outcomes: dict[str, set[str]] = {}
    for outcome, name in re.findall(r"^(PASSED|FAILED|ERROR) tests/outside/(\S+::\w+)", done.stdout, re.MULTILINE):
        outcomes.setdefault(name, set()).add(outcome)
    if not outcomes:
        print(done.stdout[-3000:] + done.stderr[-3000:], file=sys.stderr)
        return 1
    passing = [name for name, seen in sorted(outcomes.items()) if seen == {"PASSED"}]
    for name, seen in sorted(outcomes.items()):
        print(f"{'fails' if seen != {'PASSED'} else 'PASSES'} at {commit}: {name}")
    print(f"{len(outcomes) - len(passing)} of {len(outcomes)} tests fail at {commit}")
    return 1 if passing else 0


if __name__ == "__main__":
    sys.exit(main())
