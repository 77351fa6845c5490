"""Figure 1: the two supervisions, on real trajectories: CM's neighbouring points, and Direct CM's endpoints."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import MaxNLocator

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact

EXHIBITS = {
    "supervision": {
        "title": "Figure 1, the two supervisions",
        "short": "Figure 1. The two supervisions",
        "takes": "trajectories",
        "place": 1,
    }
}

COLUMNS = ["kind", "point", "state", "time", "pc1", "pc2"]
GREY = "#9a9a9a"
INSET = (0.3, 0.32)
# From this share of its window on, a step needs no enlarging.
LARGE = 0.6


def components(states: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (d,), first two principal directions (2, d) and their shares of the variance (2,), of rows (n, d).

    Directions are signed so that their entry of largest size is positive: a singular vector's own sign is arbitrary.
    """
    mean = states.mean(axis=0)
    _, sizes, rows = np.linalg.svd(states - mean, full_matrices=False)
    directions = np.zeros((2, states.shape[1]))
    directions[: min(2, len(rows))] = rows[:2]
    for row in directions:
        if row[np.argmax(np.abs(row))] < 0:
            row *= -1
    total = float((sizes**2).sum()) or 1.0
    share = np.zeros(2)
    share[: min(2, len(sizes))] = sizes[:2] ** 2 / total
    return mean, directions, share


@style.styled()
def draw(trajectories: Artifact, out_pdf: str | Path, out_png: str | Path, out_csv: str | Path) -> None:
    """Project an artefact of kind "trajectories" on the two principal components of the data, and draw both targets.

    `trajectories.safetensors`: states (m, N+1, c, h, w), valid from index start (m,) on; times (N+1,); background
    (q, c, h, w), data latents. Left: the pair x_s, x̂_n that CM ties together, one solver step apart, the longest enlarged.
    Right: from every x_s to the endpoint of its trajectory, Direct CM's target.

    The plane is the data's, not the trajectories' own: so few trajectories would each get a direction of the plane to
    themselves, and their endpoints would seem to lie outside the data.
    """
    arrays = trajectories.arrays("trajectories.safetensors")
    missing = [k for k in ("states", "start", "times", "background") if k not in arrays]
    if missing:
        raise UserError(f"{trajectories.folder}: lacks {', '.join(missing)}; delete the folder and run again")
    states = arrays["states"].astype(np.float64).reshape(*arrays["states"].shape[:2], -1)
    start, times = arrays["start"].astype(int), arrays["times"].astype(np.float64)
    if states.shape[1] != len(times) or len(states) != len(start) or (start >= len(times) - 1).any() or not len(start):
        raise UserError(
            f"{trajectories.folder}: states, start and times do not fit together; delete the folder and run again"
        )
    data = arrays["background"].reshape(len(arrays["background"]), -1).astype(np.float64)
    mean, directions, share = components(data)
    background = (data - mean) @ directions.T
    paths = [(own[s:] - mean) @ directions.T for own, s in zip(states, start, strict=True)]
    out = [{"kind": "data", "point": i, **_place(point)} for i, point in enumerate(background)]
    out += [
        {"kind": "trajectory", "point": i, "state": j, "time": tidy.number(float(times[j])), **_place(point)}
        for i, path in enumerate(paths)
        for j, point in enumerate(path, start=int(start[i]))
    ]
    cm, direct = style.LOOKS["CM"], style.LOOKS["Direct CM"]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(style.PAGE, 3.35), sharex=True, sharey=True, layout="constrained"
    )
    for axes in (left, right):
        axes.scatter(*background.T, s=5, color="#dadada", linewidths=0, zorder=1)
        for path in paths:
            axes.plot(*path.T, color=GREY, linewidth=0.7, zorder=2)
        ends = np.array([path[-1] for path in paths])
        axes.scatter(*ends.T, s=22, marker="D", facecolors=style.INK, edgecolors="white", linewidths=0.5, zorder=7)
        axes.set_xlabel(f"data's principal component 1 ({100 * share[0]:.0f} % of its variance)")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.margins(0.06)
        axes.grid(False)
    left.set_ylabel(f"data's principal component 2 ({100 * share[1]:.0f} % of its variance)")
    left.set_title("CM: two neighbours must share their endpoint", fontsize=7.2, pad=5)
    right.set_title("Direct CM: the endpoint itself is the target", fontsize=7.2, pad=5)
    for path in paths:
        _pair(left, path, 0.6)
        arrow = FancyArrowPatch(
            path[0], path[-1], arrowstyle="-|>", mutation_scale=7, color=direct.color, linewidth=1.1, shrinkA=1, shrinkB=3.5, zorder=5
        )  # fmt: skip
        right.add_patch(arrow)
        right.scatter(*path[0], s=20, marker=direct.marker, color=direct.color, linewidths=0, zorder=6)
    marker: dict[str, Any] = {"linestyle": "", "markersize": 4.2}
    entries = [
        Line2D([], [], color=GREY, linewidth=0.9, label="teacher's trajectory"),
        Line2D([], [], color=style.INK, marker="D", label="endpoint", **marker),
        Line2D([], [], color=cm.color, marker=cm.marker, label=r"CM: $x_s$", **marker),
        Line2D([], [], color=cm.color, marker=cm.marker, markerfacecolor="white", label=r"one solver step on, $\hat{x}_n$", **marker),
        Line2D([], [], color=direct.color, marker=direct.marker, label=r"Direct CM: $x_s$", **marker),
        Line2D([], [], color="#cfcfcf", marker="o", linestyle="", markersize=3, label="data"),
    ]  # fmt: skip
    style.legend(figure, entries, handlelength=1.5)
    longest, target = _enlarged(left, background, paths)
    _pair(target, longest, 1.7)
    figure.draw_without_rendering()
    points = [(float(x), float(y)) for x, y in longest]
    labels = [style.Label(*points[0], r"$x_s$", cm.color), style.Label(*points[1], r"$\hat{x}_n$", cm.color)]
    style.place(target, labels, [points], size=7)
    style.save(figure, out_pdf, out_png)
    tidy.write(out_csv, out, COLUMNS)


def _place(point: np.ndarray) -> dict[str, Any]:
    return {"pc1": tidy.number(point[0]), "pc2": tidy.number(point[1])}


def _pair(axes: Any, path: np.ndarray, scale: float) -> None:
    """What CM ties together: a path's first two points, with an arrow where they are drawn large."""
    cm = style.LOOKS["CM"]
    if scale > 1:
        arrow = {
            "arrowstyle": "-|>", "color": cm.color, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 3.4, "mutation_scale": 8,
        }  # fmt: skip
        axes.annotate("", path[1], path[0], zorder=6, arrowprops=arrow)
    mark = {"s": 15 * scale, "marker": cm.marker}
    axes.scatter(*path[0], color=cm.color, linewidths=0, zorder=5, **mark)
    axes.scatter(*path[1], facecolors="white", edgecolors=cm.color, linewidths=0.8 * scale, zorder=5.5, **mark)


def _enlarged(axes: Any, background: np.ndarray, paths: list[np.ndarray]) -> tuple[np.ndarray, Any]:
    """The path with the longest first step, and an inset that enlarges that step; the axes themselves where it is large enough."""
    to_axes = axes.transData + axes.transAxes.inverted()
    on_page = [to_axes.transform(path) for path in paths]
    index = int(np.argmax([np.hypot(*(own[1] - own[0])) for own in on_page]))
    step = on_page[index][1] - on_page[index][0]
    # The inset is so much larger than what it shows that the step takes half of it.
    scale = float(np.max(np.abs(step) / (0.5 * np.array(INSET))))
    if scale >= LARGE:
        return paths[index], axes
    half = 0.5 * max(scale, 1e-6) * np.array(INSET)
    middle = on_page[index][:2].mean(axis=0)
    low, high = to_axes.inverted().transform([middle - half, middle + half])
    cloud = np.concatenate([to_axes.transform(background), *(dense(own) for own in on_page)])
    inset = axes.inset_axes((*_free_place(cloud, middle - half, middle + half), *INSET))
    inset.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])
    for path in paths:
        inset.plot(*path.T, color=GREY, linewidth=0.9, zorder=2)
    inset.grid(False)
    for spine in inset.spines.values():
        spine.set(linewidth=0.6, color=style.LOOKS["CM"].color)
    axes.indicate_inset_zoom(inset, edgecolor=style.LOOKS["CM"].color, linewidth=0.5, alpha=0.7)
    return paths[index], inset


def dense(path: np.ndarray, step: float = 0.02) -> np.ndarray:
    """Points on a path (n, 2), no further apart than `step`."""
    parts = [path[:1]]
    for a, b in itertools.pairwise(path):
        count = max(1, int(np.ceil(np.hypot(*(b - a)) / step)))
        parts.append(a + (b - a) * (np.arange(1, count + 1) / count)[:, None])
    return np.concatenate(parts)


def _free_place(cloud: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
    """The lower left corner of an inset that hides fewest points of a cloud, off the window low … high that it enlarges.

    All in axes coordinates; among equals the one nearest to the window.
    """
    size = np.array(INSET)

    def cost(place: tuple[float, float]) -> tuple[bool, int, float]:
        first, last = np.array(place) - 0.02, np.array(place) + size + 0.02
        covers = bool(((first < high) & (last > low)).all())
        hidden = int(((cloud > first) & (cloud < last)).all(axis=1).sum())
        return covers, hidden, float(np.hypot(*((first + last) / 2 - (low + high) / 2)))

    rows, columns = (np.linspace(0.02, 0.98 - side, 7) for side in INSET[::-1])
    return min(((float(x), float(y)) for y in rows for x in columns), key=cost)
