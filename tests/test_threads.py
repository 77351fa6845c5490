"""Items done by threads ahead of who reads them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from directcm.runtime.threads import ahead


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_the_order_stays(workers: int, count: int) -> None:
    assert list(ahead(lambda n: n * n, range(count), workers)) == [n * n for n in range(count)]


def test_calls_run_beside_one_another() -> None:
    """Both are at work at once, or the barrier would break."""
    meet = threading.Barrier(2, timeout=60)
    assert len(list(ahead(lambda _: meet.wait(), range(4), 2))) == 4


def test_no_more_is_taken_than_can_be_worked_on() -> None:
    taken = []

    def items() -> Iterator[int]:
        for n in range(100):
            taken.append(n)
            yield n

    reader = ahead(lambda n: n, items(), 3)
    for n in range(10):
        assert next(reader) == n
        assert len(taken) <= n + 2 * 3 + 1


def test_as_many_are_made_ahead_as_are_read_at_once() -> None:
    """Nine for a reader of nine, though two threads would be four ahead; and no more."""
    taken = []

    def items() -> Iterator[int]:
        for n in range(40):
            taken.append(n)
            yield n

    reader = ahead(lambda n: n, items(), 2, least=9)
    for n in range(20):
        assert next(reader) == n
        assert len(taken) == n + 9 + 1


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_comes_in_its_place(workers: int) -> None:
    seen = []
    with pytest.raises(ZeroDivisionError):
        for value in ahead(lambda n: 1 / (n - 3), range(10), workers):
            seen.append(value)
    assert seen == [1 / -3, 1 / -2, -1.0]
