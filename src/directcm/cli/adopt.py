"""The verb `adopt`: results that older code has made and a release declares unchanged are kept, and a note says so.

Snakemake makes a file again where its record of the file names other code: the modules and their digest, a parameter of every
rule, or the rule's shell command. `adopt` writes the later code that is declared the same into the record, and nothing else, so
that Snakemake itself goes on deciding what is stale. What the file says of itself (manifest, provenance) stays as it is.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from directcm.cli import record
from directcm.config import parse
from directcm.errors import UserError
from directcm.runtime.artifacts import NOTES, read_json, sha256, write_json, write_text
from directcm.runtime.sources import PACKAGE_ROOT, stamp
from directcm.runtime.unchanged import FILE, STAMP, Declarations, Release, declared, later

# As Snakemake records a parameter that is text.
PARAMETER = re.compile(f"'({STAMP})'")


def _top(results: Path) -> Path:
    """The checkout that results/<preset> lies in."""
    return results.parents[1] if len(results.parents) > 1 else results.parent


def _made(results: Path) -> Iterator[tuple[str, Path, Path, dict[str, Any]]]:
    """Files in `results` that Snakemake has a record of: name within it, path, the record's path, the record.

    Raises UserError where there is none.
    """
    top, found = _top(results), False
    for key, path in record.entries(top / record.SNAKEMAKE / "metadata"):
        if Path(top, key).is_relative_to(results) and Path(top, key).is_file():
            found = True
            yield Path(top, key).relative_to(results).as_posix(), Path(top, key), path, read_json(path)
    if not found:
        raise UserError(
            f"{results}: Snakemake has made nothing here; name results/<preset> of a checkout in which it has run"
        )


def _code(made: Mapping[str, Any]) -> str | None:
    """The stamp of the code that a record names; None where it names none, as records of the first versions do."""
    found = (PARAMETER.fullmatch(text) for text in made.get("params") or () if isinstance(text, str))
    return next((match[1] for match in found if match), None)


def _today(code: str, known: dict[str, str | None]) -> str | None:
    """The stamp that the modules of a stamp have today; None where one of them is no more."""
    modules = code.rpartition(" @")[0]
    if modules not in known:
        try:
            known[modules] = stamp(*modules.split())
        except ValueError:
            known[modules] = None
    return known[modules]


def adopt(results: Path, dry_run: bool = False) -> list[str]:
    """Make Snakemake keep what is declared the same in `results`; returns what it did, and what it left, a line each kind.

    With `dry_run` it only says so. First a file's note is written, then Snakemake's record of it: where that was interrupted,
    the next call goes on. Raises UserError where Snakemake has made nothing there or is at work, and for a malformed declaration.
    """
    releases, known = declared(), dict[str, str | None]()
    locks = _top(results) / record.SNAKEMAKE / "locks"
    if not dry_run and locks.is_dir() and any(locks.iterdir()):
        raise UserError(
            f"{results}: Snakemake is at work here ({locks}); wait until it is done, or say snakemake --unlock"
        )
    kept, left = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for _, path, place, made in sorted(_made(results)):
        was, rule = _code(made), str(made.get("rule"))
        if was is None:
            # A rule without code of ours (Snakemake's own), or a record of a version that named no modules.
            if any(re.fullmatch(r"'[0-9a-f]{16}'", str(text)) for text in made.get("params") or ()):
                left[rule, "code whose modules no record names", "results of that version cannot be adopted"] += 1
            continue
        now, by = was, list[Release]()
        for code, each in later(was, releases):
            if now == _today(now, known):
                break
            now, by = code, [*by, each]
        today = _today(now, known)
        if now != today:
            said = f"today's is @{today.rpartition('@')[2]}" if today else "its modules are no more"
            left[rule, f"code {was}", f"{said}, and {FILE} does not declare the two the same"] += 1
            continue
        command = made.get("code")
        for each in releases:
            for pair in each.commands:
                if (pair.rule, pair.was) == (rule, command):
                    command = pair.now
                    by += [each] * (each not in by)
        if not by:
            continue
        kept[rule, was, now, ", ".join(dict.fromkeys(each.release for each in by))] += 1
        if not dry_run:
            _note(path, was, now, by)
            params = sorted(repr(now) if text == repr(was) else text for text in made["params"])
            write_json(place, {**made, "params": params, "code": command})
    verb = "would be adopted" if dry_run else "adopted"
    lines = [
        f"{verb}: {rule}, {_files(n)} of code {was}"
        + (f", the same as {now}" if now != was else ", whose shell command reads differently")
        + f" by release {names}"
        for (rule, was, now, names), n in sorted(kept.items())
    ]
    lines += [
        f"left: {rule}, {_files(n)} of {code}: {why}; snakemake makes them again"
        for (rule, code, why), n in sorted(left.items())
    ]
    if not kept:
        lines.append(f"{results}: nothing to adopt")
    elif not dry_run and (results / record.FOLDER).is_dir():
        lines.append(f"{results / record.FOLDER}: is older than this; make record writes it anew")
    return lines


def _files(count: int) -> str:
    return f"{count:,} file{'s' * (count != 1)}"


def _note(path: Path, was: str, now: str, by: list[Release]) -> None:
    """Add to the notes beside a file, once, that its code is taken for later code, and who says so."""
    place = path.parent / NOTES
    notes = read_json(place) if place.is_file() else {}
    note = {
        "was": was, "now": now, "sha256": sha256(path),
        "declared": [{"release": each.release, "compared": each.compared} for each in by],
    }  # fmt: skip
    before = notes.get(path.name, [])
    if note not in [{k: v for k, v in old.items() if k != "date"} for old in before]:
        date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write_json(place, {**notes, path.name: [*before, {**note, "date": date}]})


def declare(old: Path, new: Path, release: str, compared: str) -> list[str]:
    """Add to workflow/unchanged.yaml that the code of `old` gives the results of `new`; returns a line for each pair of codes.

    Both are results/<preset> of checkouts in which one configuration has run. A pair of codes is declared where every file
    that both have made has the same bytes (of an artefact its manifest, which covers them). Raises UserError where nothing is to be declared.
    """
    before = {name: (path, made) for name, path, _, made in _made(old)}
    same: dict[tuple[str, str], list[str]] = {}
    other: dict[tuple[str, str], list[str]] = {}
    commands: dict[str, tuple[str, str]] = {}
    rules: dict[str, set[tuple[str, str]]] = {}
    for name, path, _, made in sorted(_made(new)):
        if name not in before:
            continue
        there, its = before[name]
        codes, words = (_code(its), _code(made)), (its.get("code"), made.get("code"))
        if codes[0] is None or codes[1] is None or (codes[0] == codes[1] and words[0] == words[1]):
            continue
        pair = (codes[0], codes[1])
        (same if sha256(there) == sha256(path) else other).setdefault(pair, []).append(name)
        if words[0] != words[1] and words[0] and words[1]:
            commands[str(made.get("rule"))] = (words[0], words[1])
        rules.setdefault(str(made.get("rule")), set()).add(pair)
    good = sorted(pair for pair in same if pair not in other)
    lines = [f"not declared: {was} → {now}, {other[was, now][0]} differs" for was, now in sorted(other)]
    found: dict[str, Any] = {"release": release, "compared": compared}
    if changed := [{"was": was, "now": now} for was, now in good if was != now]:
        found["code"] = changed
    if worded := [
        {"rule": rule, "was": was, "now": now}
        for rule, (was, now) in sorted(commands.items())
        if not rules[rule] & set(other)
    ]:
        found["commands"] = worded
    if len(found) == 2:
        raise UserError("; ".join([f"{old} and {new}: no code differs and gives the same bytes", *lines]))
    parse(Release, found, "directcm adopt --declare")
    file = PACKAGE_ROOT / FILE
    entry = yaml.safe_dump([found], sort_keys=False, width=10_000, allow_unicode=True)
    text = re.sub(r"^releases: \[\]\n", "releases:\n", file.read_text(encoding="utf-8"), flags=re.MULTILINE) + entry
    try:
        whole = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(
            f"{file}: its list is indented, or does not end the file; write this at its end:\n{entry}"
        ) from None
    parse(Declarations, whole, str(file))
    write_text(file, text)
    return [
        *(
            f"declared: {was} → {now}, {_files(len(same[was, now]))} with the same bytes"
            for was, now in good
            if was != now
        ),
        *(f"declared: the shell command of {each['rule']}" for each in worded),
        *lines,
    ]
