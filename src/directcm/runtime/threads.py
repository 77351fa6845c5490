"""Work of a CPU beside a GPU: images are read or written by threads while the main one goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def ahead(call: Callable[[A], B], items: Iterable[A], workers: int, least: int = 0) -> Iterator[B]:
    """call(item) for each item, in order; `workers` threads are up to two items each ahead of who reads, or `least` in all.

    `least` is for a reader that takes so many at once: the threads then make those of the next time meanwhile. One worker means no threads: items are then taken and answered one by one. An error of a call is raised in its place.
    """
    if workers == 1:
        yield from map(call, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[B]] = deque()
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) > max(2 * workers, least):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
