"""What stands twice in the repository agrees: the version, what lint and CI run, the code that CONTRIBUTING walks through."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import yaml
from packaging.specifiers import SpecifierSet

from directcm.runtime.artifacts import provenance

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def recipe(target: str) -> list[str]:
    """The commands of a target of the Makefile."""
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", read("Makefile"), flags=re.MULTILINE)
    assert found is not None, target
    return [line.removeprefix("\t@") for line in found[1].splitlines()]


# ---------------------------------------------------------------------------------------------------------------------
# the version


def test_the_version_is_pyprojects() -> None:
    """The package's metadata, from which `directcm --version` and artefacts have it, and the citation."""
    version = PROJECT["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert importlib.metadata.version("directcm") == version, "an old installation: make install-dev"
    assert provenance()["versions"]["directcm"] == version
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version


def test_the_version_is_written_nowhere_else() -> None:
    version = re.compile(rf"(?<![\d.]){re.escape(PROJECT['version'])}(?![\d.])")
    folders = [file for name in ("src", "workflow", "slurm", "profiles") for file in (ROOT / name).rglob("*")]
    files = [*folders, *ROOT.glob("docs/*.md"), *ROOT.glob("envs/[!l]*"), *ROOT.glob("*.md"), ROOT / "dvc.yaml"]
    texts = [f for f in files if f.is_file() and f.suffix != ".pyc" and ".egg-info" not in str(f)]
    found = {f.relative_to(ROOT).as_posix() for f in texts if version.search(f.read_text(encoding="utf-8"))}
    assert found == {"CHANGELOG.md"}


def test_the_changelog_has_a_section_of_the_version() -> None:
    """Newest first, in the form of Keep a Changelog; the version's date is the citation's."""
    heads = re.findall(r"^## (.*)$", read("CHANGELOG.md"), flags=re.MULTILINE)
    assert heads[0] == "[Unreleased]"
    sections = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d{2}-\d{2})", head) for head in heads[1:]]
    assert all(sections), heads
    versions = [tuple(map(int, s.groups()[:3])) for s in sections if s is not None]
    assert versions == sorted(versions, reverse=True)
    dates = {".".join(s.groups()[:3]): s[4] for s in sections if s is not None}
    assert dates[PROJECT["version"]] == yaml.safe_load(read("CITATION.cff"))["date-released"]


def test_the_changelog_is_sorted() -> None:
    kinds = set(re.findall(r"^### (.*)$", read("CHANGELOG.md"), flags=re.MULTILINE))
    assert "Added" in kinds and kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


# ---------------------------------------------------------------------------------------------------------------------
# lint


def test_a_commit_is_checked_by_what_lint_runs() -> None:
    """Each hook of pre-commit is a line of `make lint`, and each line a hook; both from the locked environment."""
    (repo,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    assert repo["repo"] == "local"
    hooks = [hook["entry"] for hook in repo["hooks"] if hook["language"] == "system"]
    assert len(hooks) == len(repo["hooks"]) and all(entry.startswith(".venv/bin/") for entry in hooks)
    lines = recipe("lint")
    programs = []
    for entry in hooks:
        words = entry.removeprefix(".venv/bin/")
        # After a pipe too: codespell is told git's files.
        (line,) = [x for x in lines if re.search(rf"(^|\bxargs -0 ){re.escape(words)}( |$)", x)]
        lines.remove(line)
        programs.append(shlex.split(words)[0])
    assert not lines, "make lint runs more than pre-commit does"
    assert {"ruff", "snakefmt", "mypy", "lint-imports", "codespell"} <= set(programs)
    for program in programs:
        assert os.access(Path(sys.executable).parent / program, os.X_OK), program


# ---------------------------------------------------------------------------------------------------------------------
# the public CI


def test_the_public_ci_runs_what_ours_does() -> None:
    text = read(".github/workflows/ci.yml")
    workflow: dict[Any, Any] = yaml.safe_load(text)
    # YAML 1.1 reads the word "on" as true.
    assert workflow[True].keys() == {"push", "pull_request"} and not any(workflow[True].values())
    jobs = workflow["jobs"]
    commands = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert commands == {"all": [".ci/run"], "quick": ["make quick"]}
    assert os.access(ROOT / ".ci/run", os.X_OK)
    for job in jobs.values():
        assert job["runs-on"].startswith("ubuntu-") and 0 < job["timeout-minutes"] <= 120
        uses = [step["uses"] for step in job["steps"] if "uses" in step]
        assert uses and all(re.fullmatch(r"actions/(checkout|setup-python)@v\d+", action) for action in uses)
        # What is kept from an earlier run would hide a lock that can no longer be installed; nothing may fail unseen.
        for step in job["steps"]:
            assert step.get("with", {}).keys() <= {"python-version"} and step.keys() <= {"uses", "with", "run"}
    pythons = [jobs["all"]["steps"][1]["with"]["python-version"], *jobs["quick"]["strategy"]["matrix"]["python"]]
    assert pythons == [f"3.{n}" for n in range(30) if f"3.{n}" in SpecifierSet(PROJECT["requires-python"])]
    assert "://" not in text


# ---------------------------------------------------------------------------------------------------------------------
# the walk of one value


def test_the_walk_names_functions_that_are_there() -> None:
    """Every FILE:NAME of CONTRIBUTING's walk is a function or class of that file: who moves one moves the walk too."""
    walk = read("CONTRIBUTING.md").partition("**The walk of one value**")[2].partition("\n**")[0]
    steps = re.findall(r"`([\w/]+\.py):(\w+)`", walk)
    defined = {
        file: re.findall(r"^ *(?:def|class) (\w+)", read(f"src/directcm/{file}"), re.MULTILINE) for file, _ in steps
    }
    assert len(steps) > 15 and not [f"{file}:{name}" for file, name in steps if name not in defined[file]]
