"""Which pictures are shown, and their prompts in short: for the figure of samples, and for pages that import no drawing library."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from directcm.analysis.page import plain
from directcm.runtime.artifacts import Artifact


def choose_rows(prompts: Sequence[Mapping[str, str]], available: set[int], count: int) -> list[int]:
    """At most `count` of the available evaluation rows, in rounds: the first of each prompt, then the second of each …

    Prompts keep the order of their first rows, so that in full rounds the same prompt stands in the same place.
    """
    own: dict[str, list[int]] = {}
    for row, text in sorted((int(p["row"]), p["text"]) for p in prompts):
        if row in available:
            own.setdefault(text, []).append(row)
    rounds = itertools.zip_longest(*own.values())
    return [row for group in rounds for row in group if row is not None][:count]


def shorten(text: str, width: float, lines: int, measure: Callable[[str], float] = len) -> str:
    """A prompt in at most `lines` lines of at most `width` as `measure` has it, cut with … where it is longer.

    Words are kept whole where they fit; a longer one, or a script without spaces, is broken between characters.
    """
    left = plain(text)
    out: list[str] = []
    while left and len(out) < lines:
        end = len(left)
        if measure(left) > width:
            end = next((i for i in range(1, len(left)) if measure(left[: i + 1]) > width), len(left))
            space = left.rfind(" ", 0, end + 1)
            end = space if space > 0 else end
        out.append(left[:end].rstrip())
        left = left[end:].lstrip()
    if left:
        last = out[-1]
        while last and measure(last + "…") > width:
            last = last[:-1].rstrip()
        out[-1] = last + "…"
    return "\n".join(out) or "(no prompt)"


def images_of(shards: Sequence[Artifact]) -> dict[int, Artifact]:
    """Evaluation row → the samples artefact that holds its image."""
    return {
        int(Path(name).stem): shard
        for shard in shards
        for name in shard.checksums
        if name.startswith("images/") and name.endswith(".png")
    }
