#!/usr/bin/env python3
"""Resolve the locks in this folder from pyproject.toml, or try what the newest versions would do.

    make lock            # what is locked stays where pyproject.toml allows it
    make lock UPGRADE=1  # the newest that it allows
    make lock-check      # the same in a temporary folder, installed and tried; .venv and the locks stay as they are

lock.txt is what a run needs. lock-dev.txt is what tests and lint add, resolved with lock.txt as a constraint, so that the two
agree. lock-uv.txt is uv alone. All three are for every platform, with the hashes of all files.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from install import ENVS, LOCK, LOCK_DEV, LOCK_UV, TOP, Mistake, entries, pip_settings, sha256, uv_settings

OLDEST = "3.11"  # of the Pythons that pyproject.toml allows


def uv(*words: str, env: dict[str, str] | None = None) -> None:
    """Run uv with what pip is told of indices, certificates and proxies."""
    program = shutil.which("uv")
    if program is None:
        raise Mistake("uv resolves, and is not here: pip install --no-deps --require-hashes -r envs/lock-uv.txt")
    env = env or dict(os.environ)
    _, more = uv_settings(pip_settings(Path(sys.executable), env), env, resolve=True)
    done = subprocess.run([program, *words], cwd=TOP, env=env | more, capture_output=True, text=True, check=False)
    if done.returncode:
        print((done.stdout + done.stderr).strip(), file=sys.stderr)
        raise Mistake(f"uv {' '.join(words[:2])} failed (above)")


def blocks(text: str) -> list[tuple[str, str]]:
    """A lock's requirements (name, version and marker) and the lines of each, as uv writes them."""
    found = re.findall(r"^[A-Za-z0-9].*\n(?:[ \t]+.*\n)*", text, flags=re.MULTILINE)
    return [(block.splitlines()[0].removesuffix("\\").strip(), block) for block in found]


def resolve(folder: Path, upgrade: bool) -> None:
    """The three locks, in a folder."""
    flags = [
        "--quiet",
        "--universal",
        "--generate-hashes",
        "--python-version",
        OLDEST,
        "--custom-compile-command",
        "make lock",
    ]
    flags += ["--no-emit-index-url", "--no-emit-find-links", *(["--upgrade"] if upgrade else [])]
    run, dev, tool = (folder / f.name for f in (LOCK, LOCK_DEV, LOCK_UV))
    # uv keeps to what its output file says already, unless it is told to upgrade.
    for old in (LOCK, LOCK_UV):
        shutil.copyfile(old, folder / old.name)
    uv("pip", "compile", *flags, "--output-file", str(run), "pyproject.toml")
    uv("pip", "compile", *flags, "--output-file", str(tool), "--group", "uv")
    dev.write_text(LOCK_DEV.read_text(encoding="utf-8") + run.read_text(encoding="utf-8"), encoding="utf-8")
    constraint = ["--extra", "dev", "--constraint", str(run)]
    uv("pip", "compile", *flags, *constraint, "--output-file", str(dev), "pyproject.toml")
    whole = dev.read_text(encoding="utf-8")
    # What a run has on every machine, or on the same ones, is not said twice.
    known = {requirement for requirement, _ in blocks(run.read_text(encoding="utf-8"))}
    added = [b for requirement, b in blocks(whole) if not {requirement, requirement.partition(" ;")[0]} & known]
    head = re.match(r"(#.*\n)*", whole)
    assert head is not None
    text = head[0] + "# What a run needs, lock.txt, is left out.\n" + "".join(added)
    dev.write_text(
        re.sub(rf"^( +#.*) -c {re.escape(str(run))}$", r"\1 -c envs/lock.txt", text, flags=re.MULTILINE),
        encoding="utf-8",
    )


def lock(upgrade: bool) -> None:
    """Write the locks, all or none, and the digest in envs/directcm.yaml that has Snakemake make its conda environment anew."""
    with tempfile.TemporaryDirectory() as name:
        resolve(Path(name), upgrade)
        report(changes(Path(name)))
        for file in (LOCK, LOCK_DEV, LOCK_UV):
            file.write_bytes(Path(name, file.name).read_bytes())
    conda = ENVS / "directcm.yaml"
    text, n = re.subn(r"^# lock: .*$", f"# lock: {sha256(LOCK)}", conda.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert n == 1, conda
    conda.write_text(text, encoding="utf-8")


def versions(file: Path) -> dict[str, set[str]]:
    """Package → its versions in a lock; more than one where the Pythons differ."""
    found: dict[str, set[str]] = {}
    for name, line in entries(file):
        found.setdefault(name, set()).add(line.split()[0].partition("==")[2])
    return found


def changes(folder: Path) -> list[str]:
    """What the locks in a folder say otherwise than ours, a line each."""
    lines = []
    for ours in (LOCK, LOCK_DEV, LOCK_UV):
        old, new = versions(ours), versions(folder / ours.name)
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                was, now = (", ".join(sorted(v.get(name, {"–"}))) for v in (old, new))
                lines.append(f"{ours.name}: {name} {was} → {now}")
    return lines


def report(lines: list[str]) -> None:
    """The changes, or that there are none."""
    print("\n".join(lines) if lines else "the locks name the same versions as before")


def check() -> int:
    """Install the newest in a temporary environment, and try this project in it. The number of things that break."""
    broken = []
    with tempfile.TemporaryDirectory(prefix="directcm-newest-") as name:
        # A clone with the working tree's files; what is installed and made lies in it, and not here.
        top = Path(name, "directcm")
        subprocess.run(["git", "clone", "--quiet", str(TOP), str(top)], check=True)
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(listing, cwd=TOP, check=True, capture_output=True).stdout.decode()
        for file in filter(None, listed.split("\0")):
            if (TOP / file).is_file():
                (top / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(TOP / file, top / file)
            else:
                (top / file).unlink(missing_ok=True)
        resolve(top / "envs", upgrade=True)
        report(changes(top / "envs"))
        python = top / ".venv/bin/python"
        env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL")}
        env["PATH"] = f"{python.parent}{os.pathsep}{env['PATH']}"

        def attempt(what: str, *command: str) -> bool:
            done = subprocess.run(
                command,
                cwd=top,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
            )
            print(f"{'works' if done.returncode == 0 else 'BREAKS'}: {what}", flush=True)
            if done.returncode:
                print("    " + "\n    ".join(done.stdout.splitlines()[-40:]))
                broken.append(what)
            return done.returncode == 0

        if attempt("the installation", sys.executable, "envs/install.py", "--dev"):
            attempt("the packages' own requirements", "uv", "pip", "check", "--python", str(python))
            modules = sorted((top / "src").rglob("*.py"))
            names = [
                ".".join(m.relative_to(top / "src").with_suffix("").parts).removesuffix(".__init__") for m in modules
            ]
            every = f"import importlib\nfor name in {[n for n in names if not n.endswith('__main__')]}: importlib.import_module(name)"
            attempt("every module imports", str(python), "-c", every)
            attempt("directcm --help", "directcm", "--help")
            attempt("the workflow is read and planned", "snakemake", "--dry-run", "--quiet")
            if re.search(r"^quick:", (top / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE):
                attempt("make quick", "make", "quick")
    print(
        f"lock-check: {len(broken)} of these break: {', '.join(broken)}"
        if broken
        else "lock-check: nothing breaks; make lock UPGRADE=1 takes it"
    )
    return len(broken)


def main() -> int:
    """The command line; 2 where a user can put it right, 1 where the newest versions break something."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--upgrade", action="store_true", help="the newest versions that pyproject.toml allows")
    parser.add_argument("--check", action="store_true", help="try them, and change nothing")
    args = parser.parse_args()
    try:
        if args.check:
            return min(1, check())
        lock(args.upgrade)
    except Mistake as mistake:
        print(f"lock: {mistake}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
