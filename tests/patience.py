"""How long a test waits: for a state, and never so short that a slow machine fails it."""

from __future__ import annotations

import time
from collections.abc import Callable

# Seconds after which whatever is waited for counts as hanging. The only limit there is, for all tests.
PATIENCE = 3600.0


def until(what: str, done: Callable[[], bool], pause: float = 0.1) -> None:
    """Wait until `done`; `what` names it where it hangs."""
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, f"{what}: not within {PATIENCE:.0f} s"
        time.sleep(pause)
