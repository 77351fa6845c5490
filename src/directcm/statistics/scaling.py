"""Samples moved onto others by a map that the two are fitted to: what is left of a gap that a mean, a gain or a covariance makes.

With a student's samples f and the teacher's y of the same noise, both (n, D), their means m and covariances Σ over all rows:

    mean        f − m_f + m_y
    slope       m_f + b·(f − m_f),  b = Σ⟨f̃, ỹ⟩ / Σ‖f̃‖²           least squares over all components; f̃, ỹ are centred
    variance    m_f + b·(f − m_f),  b = √(Σ‖ỹ‖² / Σ‖f̃‖²)
    affine      m_y + A·(f − m_f),  A = Σ_f^−½ (Σ_f^½ Σ_y Σ_f^½)^½ Σ_f^−½

A is the symmetric positive map that carries one Gaussian onto the other at the least cost (Olkin and Pukelsheim 1982; Dowson and
Landau 1982): A·Σ_f·A = Σ_y. Everything is computed in float64. A map is to be judged on rows that it was not fitted on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from directcm.errors import UserError
from directcm.statistics.baselines import chunks, flat, mean_of


@dataclass(frozen=True)
class Scaling:
    """x → target + gain·(x − source): source and target float64 (D,), gain float64 () or a symmetric (D, D)."""

    source: np.ndarray
    target: np.ndarray
    gain: np.ndarray

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Some rows (n, …) of D components each, scaled: float64, of the same shape."""
        off = flat(values, np.arange(len(values))) - self.source
        moved = off @ self.gain if self.gain.ndim else off * self.gain
        return (self.target + moved).reshape(values.shape)


def fit(kind: str, made: np.ndarray, truth: np.ndarray) -> Scaling:
    """The map of a kind, mean, slope, variance or affine, fitted to samples `made` and `truth` of the same rows, both (n, …).

    UserError where their shapes differ, a value is not finite, there is no variance, or affine has too few rows for its components.
    """
    if made.shape != truth.shape or len(made) < 2:
        raise UserError(
            f"scaling: samples {made.shape} and the teacher's {truth.shape} do not belong together, or are too few"
        )
    rows = np.arange(len(made))
    source, target = mean_of(made, rows), mean_of(truth, rows)
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise UserError("scaling: a sample that a scaling is fitted on is not finite; make them again")
    if kind == "mean":
        return Scaling(source, target, np.array(1.0))
    if kind == "affine":
        too_few = (
            f"scaling: affine needs samples that vary in all of their {source.size} components, which the {len(rows)} there are do not; "
            "raise evaluation.samples, or leave affine away"
        )
        if len(rows) <= source.size:
            raise UserError(too_few)
        gain = transport(covariance(made, source), covariance(truth, target))
        if gain is None:
            raise UserError(too_few)
        return Scaling(source, target, gain)
    if kind not in ("slope", "variance"):
        raise UserError(f"scaling: {kind!r} is none that is fitted; there are mean, slope, variance and affine")
    own = cross = other = 0.0
    for part in chunks(rows, source.size):
        f, y = flat(made, part) - source, flat(truth, part) - target
        own, cross, other = own + np.vdot(f, f), cross + np.vdot(f, y), other + np.vdot(y, y)
    if not own > 0:
        raise UserError("scaling: the student's samples are all the same, and no factor gives them a variance")
    return Scaling(source, source, np.array(cross / own if kind == "slope" else np.sqrt(other / own)))


def covariance(values: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Σ over all rows (n, …) about their mean (D,), float64 (D, D); divided by n − 1."""
    total = np.zeros((mean.size, mean.size))
    for part in chunks(np.arange(len(values)), mean.size):
        off = flat(values, part) - mean
        total += off.T @ off
    return total / (len(values) - 1)


def transport(source: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """The symmetric positive A (D, D) with A·source·A = target, of two covariances; None where source is singular to rounding."""
    values, axes = np.linalg.eigh(source)
    if not values[0] > values[-1] * len(values) * np.finfo(np.float64).eps:
        return None
    root = (axes * np.sqrt(values)) @ axes.T
    inverse = (axes / np.sqrt(values)) @ axes.T
    inner, turned = np.linalg.eigh(root @ target @ root)
    return inverse @ ((turned * np.sqrt(inner.clip(min=0))) @ turned.T) @ inverse
