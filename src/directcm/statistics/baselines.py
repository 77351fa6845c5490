"""What a student has to beat: the conditional mean of the teacher's samples, and the best small linear map of the noise.

Both are least squares over rows i of one fit, with samples x_i and noise z_i in D components and a condition g(i), such as a prompt:

    conditional mean    x̂_i = m_g                m_g the mean of the condition's samples
    affine map          x̂_i = m_g + a·z_i        a = Σ⟨x̃_i, z̃_i⟩ / Σ‖z̃_i‖², m_g = x̄_g − a·z̄_g

x̃, z̃ are centred within the condition, and the sums go over all rows: one number beside the means. They are judged on another noise.

What a condition is follows from how many rows there are of each. With n_g rows a mean has the error s²/n_g itself, so that a mean
over all can be better than that of a prompt with two rows. Of the groupings that are offered the one is taken whose error is least where
each row is predicted from the others of its condition: residuals times n_g/(n_g − 1), which is exact for the mean (Allen 1974); the
gain's own share, 1/(n·D), is left out. A grouping in which some condition has one row is not among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from directcm.errors import UserError

# Errors that differ by less than this share are equal.
_SAME = 1e-9
# Numbers held in float64 at a time by one array (128 MB).
_ELEMENTS = 16_000_000


@dataclass(frozen=True)
class Fit:
    """A fitted baseline: `means` float64 (G, …) by condition, the gain (0 for the conditional mean), and its error left out by row."""

    means: np.ndarray
    gain: float
    left_out: float

    def predict(self, groups: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """x̂ float32 (n, …) of rows with these conditions (n,) and this noise (n, …)."""
        made = self.means.astype(np.float32)[groups]
        if self.gain:
            made += np.float32(self.gain) * noise.astype(np.float32, copy=False)
        return made


def chunks(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Row numbers in parts whose `size` components each fit into memory in float64."""
    step = max(1, _ELEMENTS // max(1, size))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def flat(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows as a float64 matrix (len(rows), D)."""
    return values[rows].reshape(len(rows), -1).astype(np.float64)


def mean_of(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The mean of some rows, float64 (D,)."""
    size = int(np.prod(values.shape[1:]))
    total = np.zeros(size)
    for part in chunks(rows, size):
        total += flat(values, part).sum(axis=0)
    return total / len(rows)


def members(groups: np.ndarray) -> list[np.ndarray]:
    """The rows of each group 0 … G − 1."""
    order = np.argsort(groups, kind="stable")
    return np.split(order, np.cumsum(np.bincount(groups))[:-1])


def indexed(names: Sequence[str]) -> np.ndarray:
    """Group numbers (n,) of names: 0 … G − 1 in the names' order."""
    return np.unique(np.asarray(names, dtype=str), return_inverse=True)[1].reshape(-1).astype(np.int64)


def fit(samples: np.ndarray, noise: np.ndarray, groups: np.ndarray, gain: bool) -> Fit:
    """The least-squares fit over rows of samples and noise, both (n, …), with conditions (n,) numbered from 0; `gain`: the affine map.

    UserError where shapes differ, a condition has fewer than two rows, or a sample is not finite.
    """
    if samples.shape != noise.shape or groups.shape != samples.shape[:1]:
        raise UserError(
            f"baselines: samples {samples.shape}, noise {noise.shape} and conditions {groups.shape} do not belong together"
        )
    means, sums, weights = [], [], []
    for rows in members(groups):
        if len(rows) < 2:
            raise UserError(
                "baselines: a condition has fewer than two rows to be fitted on; evaluation.samples is too few"
            )
        x_mean = mean_of(samples, rows)
        z_mean = mean_of(noise, rows) if gain else np.zeros_like(x_mean)
        own = np.zeros(3)
        for part in chunks(rows, x_mean.size):
            x = flat(samples, part) - x_mean
            own[0] += np.vdot(x, x)
            if gain:
                z = flat(noise, part) - z_mean
                own[1:] += np.vdot(x, z), np.vdot(z, z)
        means.append((x_mean, z_mean))
        sums.append(own)
        weights.append((len(rows) / (len(rows) - 1)) ** 2)
    xx, xz, zz = np.array(sums).T
    slope = float(xz.sum() / zz.sum()) if gain and zz.sum() > 0 else 0.0
    left_out = float(np.dot(weights, xx - 2 * slope * xz + slope**2 * zz)) / samples.size
    if not np.isfinite(left_out):
        raise UserError("baselines: the teacher's samples under the floor's noise are not finite; make them again")
    found = np.array([x - slope * z for x, z in means])
    return Fit(found.reshape(len(found), *samples.shape[1:]), slope, left_out)


def best(samples: np.ndarray, noise: np.ndarray, groupings: Mapping[str, np.ndarray], gain: bool) -> tuple[str, Fit]:
    """Of groupings by name, from coarse to fine, the one with the least error left out, and its fit; among equals the coarser.

    One that has a condition of a single row is passed over; UserError where that leaves none.
    """
    found: tuple[str, Fit] | None = None
    for name, groups in groupings.items():
        if np.bincount(groups).min() < 2:
            continue
        own = fit(samples, noise, groups, gain)
        # Groupings that are the same but for their order differ by rounding.
        if found is None or own.left_out < found[1].left_out * (1 - _SAME):
            found = name, own
    if found is None:
        raise UserError("baselines: a fit needs two samples or more; raise evaluation.samples")
    return found
