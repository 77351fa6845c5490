"""Progress of long steps: a line now and then on standard error, readable in a terminal, a log and a pipe alike."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

from directcm.runtime import stop

# Seconds between two lines.
EVERY = 10.0


class Progress:
    """A bar printed as whole lines, so that jobs side by side do not overwrite each other's."""

    def __init__(self, name: str, total: int, unit: str = "step", done: int = 0) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.first = self.done = done
        self.note = ""
        self.start = self.shown = time.monotonic()

    def update(self, count: int = 1, note: str = "") -> None:
        """Count work done; prints at most every ten seconds, and at the end of anything that took that long.

        Raises stop.Stopped where the process was told to stop and goes on all the same.
        """
        stop.check()
        self.done += count
        self.note = note or self.note
        now = time.monotonic()
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
