"""Precision, recall, density and coverage (`statistics.manifold`) on many subsets of the rows at once.

A ball's radius in a subset is a distance to one of the nearest rows of the whole, and what lies in it lies in the largest ball that any
subset has around the same row. So the distances are computed once, and each subset looks at few pairs of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from directcm.errors import UserError
from directcm.statistics.halves import PAIRS, Halves, paired_halves
from directcm.statistics.manifold import NEIGHBOURS, squared

PARTS = ("precision", "recall", "density", "coverage")
# Numbers held at a time by one array (32 MB of float64).
_ELEMENTS = 4_000_000
# Nearest rows among which the k-th of a half is looked for at first: 5 of 48 are missed once in 10⁹.
_NEAREST = 48


def _chunks(subsets: int, each: int) -> Iterator[slice]:
    """Slices of the subsets, of which one holds so many numbers each at a time."""
    chunk = max(1, _ELEMENTS // max(each, 1))
    return (slice(start, start + chunk) for start in range(0, subsets, chunk))


def _radii(rows: np.ndarray, kept: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of every row (n, D) to its k-th nearest among the other rows of each subset (B, n), (B, n)."""
    n = len(rows)
    distances = squared(rows, rows)
    np.fill_diagonal(distances, np.inf)
    nearest = min(n - 1, _NEAREST)
    while True:
        near = np.argpartition(distances, nearest - 1, axis=1)[:, :nearest]
        sizes = np.take_along_axis(distances, near, axis=1)
        order = sizes.argsort(axis=1)
        near, sizes = np.take_along_axis(near, order, axis=1), np.take_along_axis(sizes, order, axis=1)
        out, enough = np.empty(kept.shape), True
        for part in _chunks(len(kept), n * nearest):
            counted = kept[part][:, near].cumsum(axis=2, dtype=np.uint8 if nearest < 256 else np.int32)
            enough &= bool((counted[:, :, -1] >= k).all())
            out[part] = sizes[np.arange(n), (counted >= k).argmax(axis=2)]
        if enough or nearest == n - 1:
            return out
        nearest = min(n - 1, 4 * nearest)


class _Inside:
    """Which points (n, columns of `distances`) lie in which balls (rows), pair by pair, of those that lie in a ball's largest.

    Pairs are in the balls' order; `turned` puts them in the points'.
    """

    def __init__(self, distances: np.ndarray, radii: np.ndarray, kept: np.ndarray) -> None:
        self.ball, self.point = np.nonzero(distances <= radii.max(axis=0)[:, None])
        self.size = distances[self.ball, self.point]
        self.turned = np.argsort(self.point, kind="stable")
        self.radii, self.kept = radii, kept

    def counts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each subset (B,): points in any ball, balls that hold any point, and pairs."""
        points, balls, pairs = (np.zeros(len(self.kept)) for _ in range(3))
        if not self.size.size:
            return points, balls, pairs
        first_of_ball = np.flatnonzero(np.diff(self.ball, prepend=-1))
        first_of_point = np.flatnonzero(np.diff(self.point[self.turned], prepend=-1))
        for part in _chunks(len(self.kept), self.size.size):
            kept = self.kept[part]
            inside = kept[:, self.point] & kept[:, self.ball] & (self.size <= self.radii[part][:, self.ball])
            pairs[part] = inside.sum(axis=1)
            balls[part] = np.logical_or.reduceat(inside, first_of_ball, axis=1).sum(axis=1)
            points[part] = np.logical_or.reduceat(inside[:, self.turned], first_of_point, axis=1).sum(axis=1)
        return points, balls, pairs


def manifold_on(sets: Sequence[np.ndarray], reference: np.ndarray, kept: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """The four numbers (PARTS) of each set (n, D) against the reference (n, D), on the rows of each subset of kept (B, n): (len(sets), 4, B).

    A subset holds m > k rows, the same of both sides. Time grows with n² D for the distances, and with n B for the subsets where
    samples lie in few balls.
    """
    size = kept.sum(axis=1)
    if int(size.min()) <= k:
        raise UserError(f"{int(size.min())} rows of features: {k} nearest neighbours need at least {k + 1}")
    around = _radii(reference, kept, k)
    out = np.empty((len(sets), len(PARTS), len(kept)))
    for place, rows in enumerate(sets):
        between = squared(rows, reference)
        precise, covered, pairs = _Inside(np.ascontiguousarray(between.T), around, kept).counts()
        recalled, _, _ = _Inside(between, _radii(rows, kept, k), kept).counts()
        out[place] = precise / size, recalled / size, pairs / (k * size), covered / size
    return out


def manifold_difference_halves(
    a: np.ndarray, b: np.ndarray, reference: np.ndarray, seed: int, pairs: int = PAIRS // 2, k: int = NEIGHBOURS
) -> dict[str, Halves] | None:
    """The four numbers of a_s less those of b_s, (S, n, D), against a reference (n, D) or ref_s (S, n, D), on halves of the prompts.

    By PARTS; None where a half has no k neighbours.
    """
    seeds, n, _ = a.shape
    if n // 2 <= k:
        return None
    kept = paired_halves(n, pairs, seed)
    if reference.ndim == 2:
        found = manifold_on([*a, *b], reference, kept, k)
        values = found[:seeds] - found[seeds:]
    else:
        each = [manifold_on([x, y], ref, kept, k) for x, y, ref in zip(a, b, reference, strict=True)]
        values = np.array([x - y for x, y in each])
    return {part: Halves(values[:, place], n) for place, part in enumerate(PARTS)}
