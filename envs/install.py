#!/usr/bin/env python3
"""Install what the locks in this folder name: exactly, checked by hash, and nothing is resolved.

    python3 envs/install.py                  # .venv with what a run needs
    python3 envs/install.py --dev            # and what tests and lint add
    python3 envs/install.py --wheels wheels  # without a network, from a folder that `make wheels` filled
    python envs/install.py --here            # into this Python's own environment (conda, a container)

uv installs, itself from a lock; where it cannot be had, pip does, and one line says so. Both are told `--no-deps`: the lock is
complete, and a resolver that meets a newer release on the way would stop. It is `uv pip install` and not `uv pip sync`, which
would remove what a user added. Source packages are built by the locked setuptools, without the isolation that fetches another.

An environment carries a stamp: what it was made from, or that it is unfinished. An unfinished one starts anew, a changed lock
changes what differs, and where nothing differs nothing is done. Needs the standard library alone.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
ENVS = TOP / "envs"
LOCK, LOCK_DEV, LOCK_UV = ENVS / "lock.txt", ENVS / "lock-dev.txt", ENVS / "lock-uv.txt"
STAMP = ".installed"
FIRST_PYTHON, NO_PYTHON = (3, 11), (3, 14)


class Mistake(Exception):
    """What a user can put right: one line that names the file and the remedy."""


def sha256(*files: Path) -> str:
    """The digest of files' bytes, one after another."""
    digest = hashlib.sha256()
    for file in files:
        with open(file, "rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def normal(name: str) -> str:
    """A package's name as an index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def entries(lock: Path) -> list[tuple[str, str]]:
    """Name and requirement, hashes included, of each line of a lock; without comments."""
    found = []
    for line in lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        name = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
        if name:
            found.append((normal(name.group()), re.sub(r"\s+", " ", line)))
    return found


def build_tools() -> set[str]:
    """The packages that build this one, by pyproject.toml; they come before anything that is to be built."""
    import tomllib

    with open(TOP / "pyproject.toml", "rb") as file:
        requires = tomllib.load(file).get("build-system", {}).get("requires", [])
    return {normal(re.split(r"[^A-Za-z0-9._-]", r, maxsplit=1)[0]) for r in requires}


def tag() -> str:
    """What wheels depend on: Python's version and the platform."""
    return f"{sys.version_info[0]}.{sys.version_info[1]} {sysconfig.get_platform()}"


# ---------------------------------------------------------------------------------------------------------------------
# pip's configuration, for uv does not read it


def pip_settings(python: Path, env: dict[str, str]) -> dict[str, str]:
    """pip's options as its files and the environment set them; [install] before [global], the environment before both."""
    listed = subprocess.run(
        [str(python), "-I", "-m", "pip", "config", "list"], env=env, capture_output=True, text=True, check=False
    )
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section in sections:
            with contextlib.suppress(SyntaxError, ValueError):
                sections[section][option] = str(ast.literal_eval(value))
    return {**sections["global"], **sections["install"], **sections[":env:"]}


def _on(value: str) -> bool:
    return value.strip().lower() in ("1", "true", "yes", "on", "y", "t")


def _there(place: str) -> bool:
    # uv ends with an error where pip only warns.
    return "://" in place or Path(place).expanduser().exists()


def uv_settings(
    settings: dict[str, str], env: dict[str, str], resolve: bool = False
) -> tuple[list[str], dict[str, str]]:
    """Flags and variables that tell uv what pip is told; a variable of uv's own that is set stays as it is.

    With `resolve` without the indices and folders that only add to the first: a lock holds the hashes of every platform's
    files, and a folder has those of one.
    """
    flags: list[str] = []
    new: dict[str, str] = {}

    def give(variable: str, value: str | None, *others: str) -> None:
        if value and not any(env.get(v) for v in (variable, *others)):
            new[variable] = value

    get = settings.get
    give("UV_DEFAULT_INDEX", get("index-url"), "UV_INDEX_URL")
    if not resolve:
        extra = " ".join(get("extra-index-url", "").split())
        give("UV_INDEX", extra, "UV_EXTRA_INDEX_URL")
        if extra:
            # As pip does it: any index may have the file whose hash is in the lock, which is what makes this safe.
            give("UV_INDEX_STRATEGY", "unsafe-best-match")
        give("UV_FIND_LINKS", ",".join(filter(_there, get("find-links", "").split())))
        if _on(get("no-index", "")):
            flags.append("--no-index")
    give("SSL_CERT_FILE", get("cert"))
    give("SSL_CLIENT_CERT", get("client-cert"))
    give("ALL_PROXY", get("proxy"), "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
    give("UV_INSECURE_HOST", " ".join(get("trusted-host", "").split()))
    give("UV_HTTP_TIMEOUT", get("timeout") or get("default-timeout"))
    give("UV_HTTP_RETRIES", get("retries"))
    if _on(get("no-cache-dir", "")):
        give("UV_NO_CACHE", "1")
    return flags, new


# ---------------------------------------------------------------------------------------------------------------------
# a folder of wheels


def check_folder(folder: Path, dev: bool) -> list[Path]:
    """The locks of a folder of wheels, of this project's locks and this Python; every file that they name is there."""
    own = [folder / "lock.txt", *([folder / "lock-dev.txt"] if dev else [])]
    again = f"fill it where there is a network: make wheels WHEELS={folder}{' DEV=1' if dev else ''}"
    for file, lock in zip(own, (LOCK, LOCK_DEV), strict=False):
        if not file.is_file():
            raise Mistake(f"{file}: is missing; {again}")
        head = dict(re.findall(r"^# ([a-z]+): (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE))
        if head.get("lock") != sha256(lock):
            raise Mistake(f"{file}: was made for another {lock.relative_to(TOP)}; {again}")
        if head.get("python") != tag():
            raise Mistake(f"{file}: its wheels are for Python {head.get('python')}, and this is {tag()}; {again}")
        for name, _ in files_of(file):
            if not (folder / name).is_file():
                raise Mistake(f"{folder / name}: is missing; {again}")
    return own


def files_of(lock: Path) -> list[tuple[str, str]]:
    """Name and sha256 of each file that a folder's lock names in its comments."""
    found = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") and "  # " in line:
            requirement, _, names = line.partition("  # ")
            found += zip(names.split(), re.findall(r"--hash=sha256:([0-9a-f]{64})", requirement), strict=True)
    return found


def other_bytes(folder: Path, locks: list[Path]) -> Path | None:
    """The first file of a folder that is not what its lock says."""
    for lock in locks:
        for name, digest in files_of(lock):
            if not (folder / name).is_file() or sha256(folder / name) != digest:
                return folder / name
    return None


# ---------------------------------------------------------------------------------------------------------------------
# the installers


class Installer:
    """uv, or pip where uv cannot be had, for one Python; output is shown where a command fails."""

    def __init__(self, python: Path, scripts: Path, wheels: Path | None, only_pip: bool, held: int | None) -> None:
        """`scripts` is the folder of the environment's programs, `held` a lock that outlives us in what we start."""
        self.python, self.wheels, self.held = python, wheels, held
        self.env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
        # A constraint file of the user's can only disagree with the lock.
        self.env |= {
            "PIP_CONSTRAINT": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }
        # Compiled when first imported, for most of what is installed never is; but now, where Python may not write that later.
        self.compile = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
        self.locks: list[Path] = []
        self.flags: list[str] = []
        if wheels is not None:
            for name in [n for n in self.env if re.fullmatch(r"(PIP|UV)_.*(INDEX|INDEX_URL|FIND_LINKS)", n)]:
                del self.env[name]
            self.env["PIP_CONFIG_FILE"] = os.devnull
            self.flags = ["--no-index", "--find-links", str(wheels)]
        self.uv: Path | None = None if only_pip else self._get_uv(scripts / "uv")
        if self.uv is not None:
            if wheels is not None:
                self.uv_flags = [*self.flags, "--offline", "--no-config"]
            else:
                self.uv_flags, more = uv_settings(pip_settings(python, self.env), self.env)
                self.env |= more

    @property
    def name(self) -> str:
        """What installs."""
        return "uv" if self.uv is not None else "pip"

    def _run(self, *command: str) -> str | None:
        """None where it went well, else its output."""
        done = subprocess.run(
            command,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            pass_fds=() if self.held is None else (self.held,),
        )
        return None if done.returncode == 0 else f"{done.stdout.strip()}\nexit code {done.returncode}"

    def _get_uv(self, uv: Path) -> Path | None:
        version = re.match(r"uv==(\S+)", entries(LOCK_UV)[0][1])
        assert version is not None, LOCK_UV

        def runs() -> bool:
            with contextlib.suppress(OSError):
                done = subprocess.run([str(uv), "--version"], capture_output=True, text=True, check=False)
                return done.returncode == 0 and done.stdout.split()[1:2] == [version[1]]
            return False

        if runs():
            return uv
        failed = self._pip("install", "--require-hashes", "--requirement", str(LOCK_UV))
        if failed is None and runs():
            return uv
        why = next(
            (x for x in reversed((failed or "").splitlines()) if x.startswith("ERROR")), "ERROR: it does not run"
        )
        print(f"install: uv cannot be had here ({why[7:]}); pip installs, which takes longer", file=sys.stderr)
        return None

    def _pip(self, verb: str, *words: str) -> str | None:
        start = [str(self.python), "-I", "-m", "pip", verb, "--quiet"]
        if verb == "install":
            start += ["--no-deps", "--no-build-isolation", "--no-warn-script-location", *self.flags]
            start += [] if self.compile else ["--no-compile"]
        return self._run(*start, *words)

    def call(self, verb: str, *words: str) -> None:
        """`install` or `uninstall`, by uv if it is there; by pip too where uv fails, for the two differ in what they can reach."""
        if self.uv is not None:
            start = [str(self.uv), "pip", verb, "--quiet", "--python", str(self.python)]
            if verb == "install":
                start += ["--no-deps", "--no-build-isolation", *self.uv_flags]
                start += ["--compile-bytecode"] if self.compile else []
            failed = self._run(*start, *words)
            if failed is None:
                return
            self._blame(failed)
            print("install: uv could not do it (above); pip tries", file=sys.stderr)
            self.uv = None
        failed = self._pip(verb, *(["--yes"] if verb == "uninstall" else []), *words)
        if failed is not None:
            self._blame(failed)
            raise Mistake(f"pip could not do it (above); what was fetched is kept: call it again. {INDEX_HELP}")

    def _blame(self, output: str) -> None:
        """Show what was said; of a folder of wheels name the file that is at fault instead."""
        if self.wheels is not None:
            bad = other_bytes(self.wheels, self.locks)
            if bad is not None:
                raise Mistake(
                    f"{bad}: is not the file that was put there (its sha256 differs); make wheels again, or copy it again"
                )
        print("\n".join(output.splitlines()[-30:]), file=sys.stderr)

    def install(self, locks: list[Path], project: bool) -> None:
        """The locks, the tools that build things first; then this project, editable."""
        self.locks, tools = locks, build_tools()
        first = [line for lock in locks for name, line in entries(lock) if name in tools]
        if first:
            with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
                file.write("\n".join(first) + "\n")
                file.flush()
                self.call("install", "--require-hashes", "--requirement", file.name)
        self.call("install", "--require-hashes", *(w for lock in locks for w in ("--requirement", str(lock))))
        if project:
            self.project()

    def project(self) -> None:
        """This project, editable; its metadata anew."""
        self.call("install", *(["--reinstall"] if self.uv is not None else []), "--editable", str(TOP))


INDEX_HELP = "Behind a mirror or a proxy, or without a network: docs/install.md"


# ---------------------------------------------------------------------------------------------------------------------
# the environment


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[int]:
    """One installation at a time in a folder. What we start holds the lock too: if we are killed, the next call waits for it."""
    held = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("install: another installation is at work here; waiting for it", file=sys.stderr)
            fcntl.flock(held, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks: as if there were no other
        yield held
    finally:
        os.close(held)


def read_stamp(venv: Path) -> dict:
    """What an environment was made from; nothing where it is unfinished, not there or another's."""
    try:
        state = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_stamp(venv: Path, text: str) -> None:
    """The stamp, whole or not at all."""
    new = venv / f"{STAMP}.new"
    new.write_text(text, encoding="utf-8")
    os.replace(new, venv / STAMP)


def packages(venv: Path) -> set[tuple[str, int]]:
    """The packages of an environment, each with the time when it was last put there."""
    return {(p.name, p.stat().st_mtime_ns) for p in venv.glob("lib/python*/site-packages/*.dist-info")}


def make_venv(venv: Path, held: int) -> None:
    """An empty environment, marked as unfinished before anything else is in it."""
    ours = venv == TOP / ".venv" or (venv / STAMP).exists()
    if not ours and venv.is_dir() and any(venv.iterdir()):
        raise Mistake(f"{venv}: is there and was not made here; remove it, or name another folder: make VENV=folder")
    venv.mkdir(parents=True, exist_ok=True)
    write_stamp(venv, "unfinished\n")
    for entry in venv.iterdir():
        if entry.name == STAMP:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    # Of an environment's Python the one that it was made from, for the environment is gone.
    base = getattr(sys, "_base_executable", None) or sys.executable
    done = subprocess.run(
        [base, "-I", "-m", "venv", str(venv)], capture_output=True, text=True, check=False, pass_fds=(held,)
    )
    if done.returncode:
        print((done.stdout + done.stderr).strip(), file=sys.stderr)
        raise Mistake(
            f"{base} could not make an environment (above); on Debian or Ubuntu: apt-get install python3-venv"
        )


def into_venv(venv: Path, dev: bool, wheels: Path | None, only_pip: bool, project: bool) -> None:
    """Bring an environment to what the locks say, from whatever state it is in."""
    python = venv / "bin/python"
    place = {"python": ".".join(map(str, sys.version_info[:2])), "venv": str(venv)}
    built = {"project": sha256(TOP / "pyproject.toml") if project else ""}

    def look() -> tuple[dict, list[Path], dict, bool, bool]:
        state = read_stamp(venv)
        # Who has the tests' packages keeps them; from a folder of wheels only if they are in it.
        both = dev or (state.get("dev", False) and (wheels is None or (wheels / "lock-dev.txt").is_file()))
        ours = [LOCK, LOCK_DEV] if both else [LOCK]
        what = {"dev": both, "lock": sha256(*ours)}
        fresh = not (all(state.get(k) == v for k, v in place.items()) and os.access(python, os.X_OK))
        return state, ours, what, fresh, not fresh and all(state.get(k) == v for k, v in (what | built).items())

    if look()[-1]:
        return
    start = time.monotonic()
    venv.parent.mkdir(parents=True, exist_ok=True)
    with alone(venv.parent) as held:
        state, ours, what, fresh, done = look()
        if done:  # by another call, for which this one has waited
            return
        locks = check_folder(wheels, what["dev"]) if wheels is not None else ours
        if fresh:
            print(f"install: the locked environment into {venv} (a minute or two, once) …", file=sys.stderr)
            make_venv(venv, held)
        else:
            print(f"install: {venv} follows what has changed …", file=sys.stderr)
            write_stamp(venv, "unfinished\n")
        before = packages(venv)
        names = sorted({name for lock in ours for name, _ in entries(lock)})
        try:
            installer = Installer(python, venv / "bin", wheels, only_pip, held)
            if fresh or any(state.get(k) != v for k, v in what.items()):
                installer.install(locks, project)
                gone = sorted({*state.get("names", [])} - {*names})
                if gone:
                    installer.call("uninstall", *gone)
            else:
                installer.project()
        except BaseException:
            if not fresh and packages(venv) == before:
                write_stamp(venv, json.dumps(state))  # nothing could be fetched, and so nothing was changed
            raise
        write_stamp(venv, json.dumps({**place, **what, **built, "names": names}, indent=1) + "\n")
    print(f"install: done by {installer.name} in {time.monotonic() - start:.0f} s", file=sys.stderr)


def into_this(dev: bool, wheels: Path | None, only_pip: bool, project: bool) -> None:
    """Into the environment of the Python that runs this."""
    if sys.prefix == sys.base_prefix and Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists():
        raise Mistake(
            f"{sys.executable}: belongs to the system, which manages it; leave out --here and a .venv is made"
        )
    locks = check_folder(wheels, dev) if wheels is not None else [LOCK, LOCK_DEV] if dev else [LOCK]
    Installer(Path(sys.executable), Path(sysconfig.get_path("scripts")), wheels, only_pip, None).install(locks, project)


def main() -> int:
    """The command line; 2 where a user can put it right."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0],
        epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dev", action="store_true", help="what tests and lint add, too")
    parser.add_argument(
        "--venv", type=Path, default=TOP / ".venv", help="the environment's folder (default: .venv beside envs/)"
    )
    parser.add_argument("--here", action="store_true", help="no folder: the environment of the Python that runs this")
    parser.add_argument("--wheels", type=Path, help="a folder that `make wheels` filled; no index is asked")
    parser.add_argument("--pip", action="store_true", help="pip even where uv can be had")
    parser.add_argument("--locks-only", action="store_true", help="without this project itself")
    args = parser.parse_args()
    try:
        if not FIRST_PYTHON <= sys.version_info[:2] < NO_PYTHON:
            here = ".".join(map(str, sys.version_info[:2]))
            raise Mistake(
                f"Python 3.11, 3.12 or 3.13 is needed and {sys.executable} is {here}; call it with another: python3.12 envs/install.py"
            )
        wheels = Path(os.path.abspath(args.wheels)) if args.wheels else None
        rest = (args.dev, wheels, args.pip, not args.locks_only)
        if args.here:
            into_this(*rest)
        else:
            into_venv(Path(os.path.abspath(args.venv)), *rest)
    except Mistake as mistake:
        print(f"install: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("install: interrupted; the next call goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
