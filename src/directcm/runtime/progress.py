"""Progress of long steps: a line now and then on standard error, readable in a terminal, a log and a pipe alike.

What was counted, and how fast, goes into the provenance of what the process makes: from there `directcm rehearse` takes its rates.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Any

from tqdm import tqdm

from directcm.runtime import stop

# Seconds between two lines.
EVERY = 10.0
# What this process counted last.
_COUNTED: deque[Progress] = deque(maxlen=16)


def counted() -> list[dict[str, Any]]:
    """Of each progress of this process: name, unit, how many it counted, in how many seconds, and at which rate.

    `per_second` leaves the first update out where there are more: it holds what is done once, such as compiling.
    """
    return [progress.record() for progress in _COUNTED if progress.made]


class Progress:
    """A bar printed as whole lines, so that jobs side by side do not overwrite each other's."""

    def __init__(self, name: str, total: int, unit: str = "step", done: int = 0) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.first = self.done = done
        self.note = ""
        self.start = self.shown = self.last = time.monotonic()
        # What this process did itself: how many, of these in the first update, and when that ended.
        self.made = self.begun = 0
        self.warm = self.start
        _COUNTED.append(self)

    def skip(self, count: int) -> None:
        """Count work that was there already: it says nothing of how fast the rest is."""
        self.first += count
        self.done += count

    def record(self) -> dict[str, Any]:
        """What it counted itself, as provenance has it."""
        seconds, rest = self.last - self.start, self.last - self.warm
        rate = (self.made - self.begun) / rest if self.made > self.begun and rest > 0 else None
        alone = self.made / seconds if seconds > 0 else None
        return {
            "name": self.name,
            "unit": self.unit,
            "count": self.made,
            "seconds": round(seconds, 3),
            "per_second": rate or alone,
        }

    def update(self, count: int = 1, note: str = "") -> None:
        """Count work done; prints at most every ten seconds, and at the end of anything that took that long.

        Raises stop.Stopped where the process was told to stop and goes on all the same.
        """
        stop.check()
        self.done += count
        self.note = note or self.note
        now = self.last = time.monotonic()
        if not self.made:
            self.begun, self.warm = count, now
        self.made += count
        if now - self.shown >= EVERY or (self.done >= self.total and now - self.start >= EVERY):
            self.shown = now
            line = tqdm.format_meter(
                self.done,
                self.total,
                now - self.start,
                ncols=100,
                prefix=self.name,
                unit=self.unit,
                initial=self.first,
                ascii=False,
                postfix=self.note or None,
            )
            print(line, file=sys.stderr, flush=True)
