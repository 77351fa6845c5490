"""The installation: from packages of the test's own, in a folder; no index of anyone else's is asked.

    DIRECTCM_MAKEFILE_OF=/path/to/another/checkout python -m pytest tests/test_install.py -k "newer or folder_of" --no-cov

tries another checkout's Makefile (and its envs/*.py, where it has them) instead of this one's.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE_OF = Path(os.environ.get("DIRECTCM_MAKEFILE_OF", ROOT))
LOCKS = ("lock.txt", "lock-dev.txt", "lock-uv.txt")
UV = Path(sys.executable).parent / "uv"


def load(name: str) -> Any:
    """A script of envs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "envs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


install = load("install")


# ---------------------------------------------------------------------------------------------------------------------
# packages of our own


def wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = (), **scripts: str) -> Path:
    """A wheel with one module, the requirements and perhaps a program."""
    info = f"{name}-{version}.dist-info"
    extras = {m[1] for r in requires if (m := re.search(r"extra == '(\w+)'", r))}
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
    metadata += [f"Provides-Extra: {extra}\n" for extra in sorted(extras)] + [f"Requires-Dist: {r}\n" for r in requires]
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": "".join(metadata),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        **{f"{name}-{version}.data/scripts/{program}": text for program, text in scripts.items()},
    }
    record = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(text.encode())}\n")
    files[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"])
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in files.items():
            entry = zipfile.ZipInfo(path, (2026, 1, 1, 0, 0, 0))
            entry.external_attr = (0o100755 if "/scripts/" in path else 0o100644) << 16
            archive.writestr(entry, text)
    return file


# It builds wheels of a pure module or, editable, of a path; so that no builder is needed from anywhere.
BACKEND = """
import pathlib, sys, zipfile

NAME, VERSION = {name!r}, {version!r}

def _build(folder, body):
    info = f"{{NAME}}-{{VERSION}}.dist-info"
    name = f"{{NAME}}-{{VERSION}}-py3-none-any.whl"
    files = {{
        **body,
        f"{{info}}/METADATA": f"Metadata-Version: 2.1\\nName: {{NAME}}\\nVersion: {{VERSION}}\\n",
        f"{{info}}/WHEEL": "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }}
    files[f"{{info}}/RECORD"] = "".join(f"{{n}},,\\n" for n in [*files, f"{{info}}/RECORD"])
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return name

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    return _build(wheel_directory, {{f"{{NAME}}.py": "built = True\\n"}})

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    return _build(wheel_directory, {{f"{{NAME}}.pth": str(pathlib.Path.cwd() / "src") + "\\n"}})
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n[project]\nname = "{name}"\nversion = "{version}"\n'


def source(folder: Path, name: str, version: str) -> Path:
    """A source package that has no wheel."""
    file = folder / f"{name}-{version}.tar.gz"
    texts = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "pyproject.toml": PROJECT.format(name=name, version=version),
        "backend.py": BACKEND.format(name=name, version=version),
    }
    with tarfile.open(file, "w:gz") as archive:
        for path, text in texts.items():
            entry = tarfile.TarInfo(f"{name}-{version}/{path}")
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return file


def pinned(*files: Path) -> str:
    """Lines of a lock, as `uv pip compile` writes them."""
    lines = []
    for file in files:
        name, version = file.name.removesuffix(".tar.gz").split("-")[:2]
        lines.append(
            f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n    # via a test\n"
        )
    return "".join(lines)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """alpha, locked at 1.0, and the index has 1.1; beta asks for alpha with an extra; delta is for tests; sigma has no wheel.

    uv is a wheel whose program hands over to the real uv, and hangs first where HANG names a file.
    """
    files = tmp_path_factory.mktemp("packages")
    assert UV.is_file(), f"{UV}: is not there, and installs in these tests: make install-dev"
    said = subprocess.run([UV, "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
    program = (
        f'#!/bin/sh\nif [ -n "$HANG" ] && [ "$1" = pip ]; then echo $$ > "$HANG"; sleep 1000; fi\nexec "{UV}" "$@"\n'
    )
    return SimpleNamespace(
        folder=files,
        alpha=wheel(files, "alpha", "1.0", ("gamma; extra == 'more'",)),
        newer=wheel(files, "alpha", "1.1", ("gamma; extra == 'more'",)),
        beta=wheel(files, "beta", "1.0", ("alpha[more]>=1.0",)),
        gamma=wheel(files, "gamma", "2.0"),
        delta=wheel(files, "delta", "3.0"),
        sigma=source(files, "sigma", "4.0"),
        uv=wheel(files, "uv", said, uv=program),
    )


class Project:
    """A project with the Makefile and the scripts that are tested, locks of its own and a package `tiny`."""

    def __init__(self, folder: Path, packages: SimpleNamespace) -> None:
        self.top, self.packages = folder / "project", packages
        (self.top / "envs").mkdir(parents=True)
        shutil.copy(MAKEFILE_OF / "Makefile", self.top)
        for script in MAKEFILE_OF.glob("envs/*.py"):
            shutil.copy(script, self.top / "envs")
        (self.top / "src").mkdir()
        (self.top / "src/tiny.py").write_text("here = True\n")
        (self.top / "pyproject.toml").write_text(PROJECT.format(name="tiny", version="0.1"))
        (self.top / "backend.py").write_text(BACKEND.format(name="tiny", version="0.1"))
        p = packages
        self.installer = "uv"
        self.lock(p.alpha, p.beta, p.gamma, p.sigma)
        self.lock(p.delta, name="lock-dev.txt")
        self.lock(p.uv, name="lock-uv.txt")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_", "MAKE", "COV_", "PYTHON"))}
        self.env |= {"PIP_CONFIG_FILE": os.devnull, "HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}
        self.env |= {"PYTHON": sys.executable, "VENV": ".venv", "WHEELS": "", "HANG": ""}

    def lock(self, *files: Path, name: str = "lock.txt") -> None:
        """Write a lock."""
        (self.top / "envs" / name).write_text(pinned(*files))

    def index(self, *files: Path) -> None:
        """The only index is a folder with these files, laid out as one."""
        simple = self.top.parent / "simple"
        for file in files:
            page = simple / file.name.split("-")[0] / "index.html"
            page.parent.mkdir(parents=True, exist_ok=True)
            with page.open("a") as text:
                text.write(f'<a href="{file.as_uri()}">{file.name}</a><br>\n')
        self.env["PIP_INDEX_URL"] = simple.as_uri()

    def no_index(self) -> None:
        """An index that nobody reaches: whoever asks it fails."""
        self.env |= {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0", "UV_HTTP_RETRIES": "0"}

    def make(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Call make as a user does."""
        return subprocess.run(
            ["make", *words], cwd=self.top, env={**self.env, **env}, capture_output=True, text=True, check=False
        )

    @property
    def site(self) -> Path:
        """Where packages lie."""
        return next(self.top.glob(".venv/lib/python*/site-packages"))

    def installed(self) -> dict[str, str]:
        """Package → version of what the environment's own Python finds; without what a new environment has."""
        code = "import importlib.metadata as m, tiny; [print(d.name, d.version) for d in m.distributions()]"
        done = subprocess.run(
            [self.top / ".venv/bin/python", "-I", "-c", code], check=True, capture_output=True, text=True
        )
        found = dict(line.split() for line in done.stdout.splitlines())
        return {k: v for k, v in found.items() if k not in ("pip", "setuptools", "uv")}

    def by(self, name: str) -> str:
        """What installed a package."""
        return next(self.site.glob(f"{name}-*.dist-info/INSTALLER")).read_text().strip()


@pytest.fixture
def project(tmp_path: Path, packages: SimpleNamespace) -> Project:
    return Project(tmp_path, packages)


def good(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


RUN = {"alpha": "1.0", "beta": "1.0", "gamma": "2.0", "sigma": "4.0", "tiny": "0.1"}


@pytest.fixture(scope="module", params=["uv", "pip"])
def clone(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, packages: SimpleNamespace
) -> Project:
    """A clone and an index that has all that is locked, and a newer alpha; uv too, or not."""
    p = packages
    clone = Project(tmp_path_factory.mktemp(request.param), packages)
    clone.installer = request.param
    clone.index(p.alpha, p.newer, p.beta, p.gamma, p.delta, p.sigma, *([p.uv] if clone.installer == "uv" else []))
    return clone


@pytest.mark.slow
def test_a_newer_release_changes_nothing_that_is_locked(clone: Project) -> None:
    """alpha 1.1 is out, and beta asks for alpha with an extra: pip's resolver meets 1.1, which has no hash, and stops."""
    said = good(clone.make("install"))
    assert clone.installed() == RUN and clone.by("alpha") == clone.by("sigma") == clone.by("tiny") == clone.installer
    assert said.count("uv cannot be had here") == (clone.installer == "pip")
    assert not list(clone.site.glob("__pycache__/*.pyc"))
    # Tests and lint add to it. Compiled at once only where Python may not do it when it imports.
    # make lets Python keep bytecode, whatever the surroundings say: it is compiled when it is first imported.
    good(clone.make("install-dev", PYTHONDONTWRITEBYTECODE="1"))
    assert not list(clone.site.glob("__pycache__/delta.*.pyc"))
    # Then there is nothing to do, for either.
    assert clone.installed() == RUN | {"delta": "3.0"} and clone.by("delta") == clone.installer
    before = {f: f.stat().st_mtime_ns for f in clone.top.rglob("*")}
    assert good(clone.make("install-dev")) == "" == good(clone.make("install"))
    assert {f: f.stat().st_mtime_ns for f in clone.top.rglob("*")} == before


@pytest.mark.slow
def test_make_wheels_fills_a_folder(clone: Project, packages: SimpleNamespace) -> None:
    """The locked files and no newer ones; what has no wheel is built; the folder's locks name all with their hashes."""
    good(clone.make("install"))
    folder = clone.top / "carried"
    done = clone.make("wheels", "DEV=1", f"WHEELS={folder}")
    said = good(done)
    assert "wheels: 5, 0.0 GB" in done.stdout and said.count("uv cannot be had here") == (clone.installer == "pip")
    p, built = packages, folder / "sigma-4.0-py3-none-any.whl"
    run = [p.alpha, p.beta, p.gamma, built]
    assert (folder / "lock.txt").read_text().endswith(folder_lock(clone, "lock.txt", *run))
    assert (folder / "lock-dev.txt").read_text().endswith(folder_lock(clone, "lock-dev.txt", p.delta))
    others = [p.delta, p.uv] if clone.installer == "uv" else [p.delta]
    assert {f.name for f in folder.iterdir()} == {f.name for f in [*run, *others]} | {"lock.txt", "lock-dev.txt"}
    for file in (p.alpha, p.beta, p.gamma, *others):
        assert (folder / file.name).read_bytes() == file.read_bytes()


def folder_lock(project: Project, lock: str, *files: Path, python: str = install.tag()) -> str:
    """What a folder's own lock says of its files."""
    lines = [f"# lock: {install.sha256(project.top / 'envs' / lock)}\n# python: {python}\n"]
    for file in files:
        name, version = file.name.split("-")[:2]
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        lines.append(f"{name}=={version} --hash=sha256:{digest}  # {file.name}\n")
    return "".join(lines)


def fill(project: Project, *files: Path, lock: str = "lock.txt") -> Path:
    """A folder with these wheels, such as `make wheels` fills."""
    folder = project.top.parent / "carried"
    folder.mkdir(exist_ok=True)
    for file in files:
        shutil.copy(file, folder)
    (folder / lock).write_text(folder_lock(project, lock, *files))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_folder_of_wheels_is_all_that_is_needed(
    project: Project, packages: SimpleNamespace, tmp_path: Path, installer: str
) -> None:
    """No index can be reached. sigma, which has no wheel elsewhere, has one in the folder, and its hash is there alone."""
    p = packages
    project.no_index()
    folder = fill(project, p.alpha, p.beta, p.gamma, wheel(tmp_path, "sigma", "4.0"))
    fill(project, p.delta, lock="lock-dev.txt")
    if installer == "uv":
        shutil.copy(p.uv, folder)
    good(project.make("install", WHEELS="../carried"))
    assert project.installed() == RUN and project.by("alpha") == project.by("tiny") == installer
    good(project.make("install-dev", f"WHEELS={folder}"))
    assert project.installed() == RUN | {"delta": "3.0"}


@pytest.mark.slow
def test_a_folder_that_lacks_something_is_named(project: Project, packages: SimpleNamespace) -> None:
    """One line names the file, be it missing, another's or of other bytes; nothing is asked of an index."""
    p = packages
    project.no_index()
    project.lock(p.alpha, p.beta, p.gamma)
    files = [p.alpha, p.beta, p.gamma]
    folder = fill(project, *files)
    own = folder / "lock.txt"

    def refused() -> str:
        done = project.make("install", WHEELS="../carried")
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("install: /") and "into" not in line]
        return line.removeprefix("install: ")

    own.write_text(folder_lock(project, "lock.txt", *files, python="2.7 plan9"))
    assert refused().startswith(f"{own}: its wheels are for Python 2.7 plan9, and this is {install.tag()}; ")
    own.unlink()
    assert refused().startswith(f"{own}: is missing; fill it where there is a network: make wheels WHEELS=")
    fill(project, *files)
    (folder / p.beta.name).unlink()
    assert refused().startswith(f"{folder / p.beta.name}: is missing; ")
    assert not (project.top / ".venv").exists()  # so far nothing was begun
    wheel(folder, "beta", "1.0", ("alpha>=0.9",))
    assert refused().startswith(f"{folder / p.beta.name}: is not the file that was put there")
    project.lock(p.newer, p.beta, p.gamma)
    assert refused().startswith(f"{own}: was made for another envs/lock.txt; ")


def appears(file: Path) -> str:
    """Wait until a file has content."""
    while not file.exists() or not file.read_text().strip():
        time.sleep(0.02)
    return file.read_text().strip()


@pytest.fixture
def killed() -> Iterator[list[int]]:
    """Process groups to end, whatever happens."""
    groups: list[int] = []
    yield groups
    for group in groups:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


@pytest.mark.slow
def test_what_was_killed_is_mended_and_a_changed_lock_followed(
    project: Project, packages: SimpleNamespace, killed: list[int]
) -> None:
    """kill -9 of the installation alone: what it started still writes, and the next call waits for its end."""
    p = packages
    project.index(p.alpha, p.newer, p.beta, p.gamma, p.delta, p.sigma, p.uv)
    # Something without any sense in the way: of older tools, or made by hand.
    (project.top / ".venv/bin").mkdir(parents=True)
    (project.top / ".venv/bin/python").write_text("half a pro")
    hang = project.top.parent / "hang"
    command = [sys.executable, "envs/install.py"]
    quiet: dict[str, Any] = {"cwd": project.top, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    first = subprocess.Popen(command, env=project.env | {"HANG": str(hang)}, **quiet)
    killed.append(first.pid)
    appears(hang)
    first.kill()
    first.wait()
    # As a package looks that was cut off half-way: there by its name, and nothing in it.
    (project.site / "alpha-1.0.dist-info").mkdir()
    (project.site / "alpha-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: alpha\nVersion: 1.0\n")
    second = subprocess.Popen(command, env=project.env, **quiet)
    killed.append(second.pid)
    assert second.stderr is not None and "another installation is at work here" in second.stderr.readline()
    os.killpg(first.pid, signal.SIGKILL)
    said = second.communicate()[1]
    assert second.returncode == 0, said
    assert project.installed() == RUN and (project.site / "alpha.py").is_file()

    # A changed lock: one package is another version, one is gone, one was the user's own, one stays untouched.
    project.lock(p.newer, p.beta)
    (project.site / "users.py").touch()
    beta = [project.site / "beta.py", project.site / "beta-1.0.dist-info/METADATA"]
    before = [(f.stat().st_ino, f.stat().st_ctime_ns) for f in beta]
    good(project.make("install"))
    assert project.installed() == {"alpha": "1.1", "beta": "1.0", "tiny": "0.1"}
    assert before == [(f.stat().st_ino, f.stat().st_ctime_ns) for f in beta]
    assert not (project.site / "gamma.py").exists() and (project.site / "users.py").exists()

    # Nothing of a lock can be had: it says so, and the environment is what it was.
    project.lock(p.delta)
    index = project.env["PIP_INDEX_URL"]
    project.no_index()
    project.env["UV_OFFLINE"] = "1"
    done = project.make("install")
    assert done.returncode == 2 and "install: pip could not do it (above)" in done.stderr, done.stderr
    assert project.installed()["alpha"] == "1.1"
    del project.env["UV_OFFLINE"]
    project.env["PIP_INDEX_URL"] = index
    good(project.make("install"))
    assert project.installed() == {"delta": "3.0", "tiny": "0.1"} and (project.site / "users.py").exists()

    # Another Python, or one that is gone, or a project that was moved: from the start.
    stamp = project.top / ".venv/.installed"
    version = ".".join(map(str, sys.version_info[:2]))
    stamp.write_text(stamp.read_text().replace(f'"{version}"', '"3.10"'))
    good(project.make("install"))
    assert project.installed() == {"delta": "3.0", "tiny": "0.1"} and not (project.site / "users.py").exists()


def test_a_folder_of_someone_else_is_left_alone(project: Project) -> None:
    """VENV=~ is a slip, VENV=another-environment too, and what lies there stays."""
    for name in ("thesis.tex", "pyvenv.cfg"):
        mine = project.top / f"with-{name}"
        mine.mkdir()
        (mine / name).touch()
        done = project.make("install", f"VENV={mine}")
        assert done.returncode == 2 and f"install: {mine}: is there and was not made here" in done.stderr
        assert os.listdir(mine) == [name]


# ---------------------------------------------------------------------------------------------------------------------
# pip's configuration


def test_pips_configuration_counts_for_uv(tmp_path: Path) -> None:
    """Files and variables of pip's; [install] before [global], the environment before both; uv's own stay."""
    (tmp_path / "wheels").mkdir()
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = http://first/simple\ncert = /certs/all.pem\ntrusted-host =\n    a\n    b:8080\nproxy = http://proxy\n"
        f"[install]\nindex-url = http://second/simple\nfind-links = {tmp_path}/wheels {tmp_path}/missing\n[download]\nretries = 9\n"
    )
    env = {
        "PATH": os.environ["PATH"],
        "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"),
        "PIP_EXTRA_INDEX_URL": "http://x http://y",
    }
    env |= {"PIP_DEFAULT_TIMEOUT": "77", "HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path)}
    settings = install.pip_settings(Path(sys.executable), env)
    flags, told = install.uv_settings(settings, env)
    assert flags == [] and told == {
        "UV_DEFAULT_INDEX": "http://second/simple",
        "UV_INDEX": "http://x http://y",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": f"{tmp_path}/wheels",  # uv ends where a folder is missing
        "SSL_CERT_FILE": "/certs/all.pem",
        "ALL_PROXY": "http://proxy",
        "UV_INSECURE_HOST": "a b:8080",
        "UV_HTTP_TIMEOUT": "77",
    }
    own = {"UV_INDEX_URL": "http://own", "SSL_CERT_FILE": "/own.pem", "https_proxy": "http://own"}
    assert not {"UV_DEFAULT_INDEX", "SSL_CERT_FILE", "ALL_PROXY"} & install.uv_settings(settings, own)[1].keys()
    # A lock is for all platforms: what only adds to the index has the files of one.
    assert not {"UV_INDEX", "UV_FIND_LINKS"} & install.uv_settings(settings, env, resolve=True)[1].keys()
    env["PIP_NO_INDEX"] = "1"
    assert install.uv_settings(install.pip_settings(Path(sys.executable), env), env)[0] == ["--no-index"]


@pytest.mark.slow
def test_the_file_with_the_locked_hash_is_taken_wherever_it_lies(project: Project, packages: SimpleNamespace) -> None:
    """A mirror has other bytes under the same name and version; a folder of pip's configuration has the right ones."""
    p = packages
    other = wheel(project.top.parent / "mirror", "alpha", "1.0", ("gamma>=1",))
    assert other.read_bytes() != p.alpha.read_bytes()
    project.index(other, p.beta, p.gamma, p.sigma, p.uv)
    right = project.top.parent / "right"
    right.mkdir()
    shutil.copy(p.alpha, right)
    good(project.make("install", PIP_FIND_LINKS=str(right)))
    assert project.installed() == RUN and project.by("alpha") == "uv"


# ---------------------------------------------------------------------------------------------------------------------
# this project's locks


def locked(*names: str) -> dict[str, list[Requirement]]:
    """Package → requirements of this project's locks, all of which have hashes."""
    found: dict[str, list[Requirement]] = {}
    for lock in names:
        for name, line in install.entries(ROOT / "envs" / lock):
            assert re.search(r" --hash=sha256:[0-9a-f]{64}( |$)", line), f"{lock}: {name} has no hash"
            found.setdefault(name, []).append(Requirement(re.sub(r" --hash=\S+", "", line)))
    return found


def version_here(requirements: list[Requirement]) -> str:
    """The version that is locked for this Python and platform."""
    (one,) = {str(r.specifier) for r in requirements if r.marker is None or r.marker.evaluate()}
    return one.removeprefix("==")


PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NEEDED = PYPROJECT["project"]["dependencies"]


@pytest.mark.parametrize(
    ("locks", "asked"),
    [
        (LOCKS[:1], [*NEEDED, *PYPROJECT["build-system"]["requires"]]),
        (LOCKS[:2], [*NEEDED, *PYPROJECT["project"]["optional-dependencies"]["dev"]]),
        (LOCKS[2:], PYPROJECT["dependency-groups"]["uv"]),
    ],
)
def test_locks_have_all_that_is_asked_for(locks: tuple[str, ...], asked: list[str]) -> None:
    """Nobody resolves any more, so a lock must be whole: what pyproject.toml asks for, and what that asks for in turn."""
    lock = locked(*locks)
    todo, seen = [Requirement(r) for r in asked], set()
    while todo:
        wanted = todo.pop()
        name = install.normal(wanted.name)
        if (name, *sorted(wanted.extras)) in seen:
            continue
        seen.add((name, *sorted(wanted.extras)))
        assert name in lock, f"{wanted} is in none of {locks}: make lock"
        version = version_here(lock[name])
        assert wanted.specifier.contains(version, prereleases=True), f"{wanted}, and locked is {version}: make lock"
        for text in importlib.metadata.distribution(name).requires or ():
            further = Requirement(text)
            extras = ["", *wanted.extras]
            if further.marker is None or any(further.marker.evaluate({"extra": e}) for e in extras):
                todo.append(further)
    assert len(seen) >= len(asked)


def test_locks_agree() -> None:
    """lock-dev.txt adds to lock.txt; the digest that has Snakemake make its conda environment anew is lock.txt's."""
    run, dev = locked("lock.txt"), locked("lock-dev.txt")
    for name in run.keys() & dev.keys():
        assert {r.specifier for r in dev[name]} <= {r.specifier for r in run[name]}, name
    assert not {"pytest", "ruff", "mypy", "coverage", "playwright", "uv"} & run.keys()
    assert f"# lock: {install.sha256(ROOT / 'envs/lock.txt')}\n" in (ROOT / "envs/directcm.yaml").read_text()


def test_a_run_imports_nothing_that_only_tests_have() -> None:
    """What src/ and workflow/ import is Python's, this project's, or in lock.txt."""
    imported: dict[str, Path] = {}
    for folder in ("src", "workflow"):
        for file in sorted([*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.smk")]):
            text = file.read_text(encoding="utf-8")
            if file.suffix == ".smk":  # no Python as a whole; its imports are
                text = "\n".join(re.findall(r"^\s*((?:from [\w.]+ )?import [\w., ]+)$", text, flags=re.MULTILINE))
                text = "\n".join(line.strip() for line in text.splitlines())
            for node in ast.walk(ast.parse(text)):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                    names = [node.module]
                imported |= {name.partition(".")[0]: file for name in names}
    assert {"torch", "pandas", "numpy"} <= imported.keys()
    run = locked("lock.txt").keys()
    whose = importlib.metadata.packages_distributions()
    for name, file in imported.items():
        if name not in sys.stdlib_module_names and name != "directcm":
            assert {install.normal(d) for d in whose[name]} & run, (
                f"{file} imports {name}, which is not in envs/lock.txt"
            )
