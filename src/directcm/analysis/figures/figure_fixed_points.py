"""What CM, Direct CM and the targets between them converge to in classes of random features, and the flow that leads there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import seaborn
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator
from scipy import stats

from directcm.analysis.data import tidy
from directcm.analysis.figures import style
from directcm.analysis.figures.chart import panels
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact

EXHIBITS = {
    "fixed_points": {
        "title": "Fixed points of k-step targets",
        "takes": "fixed_points",
        "needs": "fixed_points",
        "place": 7,
    }
}

COLUMNS = ["process", "dimension", "class", "measure", "m", "tau", "k", "mean", "low", "high", "n"]
# By what heights mean: the panels side by side, each its measure, whether along the flow, and its title.
PANELS = {
    "ODE error": (("ode_error", False, "ODE error\nfixed points"), ("ode_error", True, "ODE error\nflow, m = {m}")),
    "sliced W₂": (
        ("sw2_teacher", False, "sliced W₂\nfixed points"),
        ("sw2_teacher", True, "sliced W₂\nflow, m = {m}"),
        ("sw2_matched", False, "at the teacher's mean\nand variance"),
    ),
}
PROCESSES = {"vp": "VP", "karras": "Karras"}
# Of several classes the one that is drawn.
CLASSES = ("shared", "plain", "per_time")
# Two sets of the teacher's samples of this size are so far apart.
FLOOR = "Teacher, other noise"
CROWD = "#009e73"
MARKERS = "osDv*XP"
# What a panel of sliced distances says at its top about CM against Direct CM, by the summary's verdict.
MARKS = {"inversion": True, "opposite": False}
VERDICTS = {"sw2_teacher": "verdict", "sw2_matched": "by_sw2_matched"}


def geometric(values: Sequence[float], level: float = 0.95) -> tuple[float, float, float]:
    """(mean, low, high) of positive values: geometric, with Student's t on their logarithms; NaN for fewer than two."""
    logs = [math.log(v) for v in values]
    mean = math.fsum(logs) / len(logs) if logs else math.nan
    if len(logs) < 2:
        return math.exp(mean), math.nan, math.nan
    se = math.sqrt(math.fsum((v - mean) ** 2 for v in logs) / (len(logs) - 1) / len(logs))
    wide = float(stats.t.ppf(0.5 + level / 2, len(logs) - 1)) * se
    return math.exp(mean), math.exp(mean - wide), math.exp(mean + wide)


def looks(ks: Sequence[int]) -> dict[int, style.Look]:
    """CM's look at the smallest k, Direct CM's at the largest, and from one colour to the other between."""
    first, last = style.LOOKS["CM"], style.LOOKS["Direct CM"]
    between = seaborn.blend_palette([first.color, CROWD, last.color], len(ks)).as_hex()
    found = {k: style.Look(between[i], MARKERS[i % len(MARKERS)], "-") for i, k in enumerate(ks)}
    return found | {ks[0]: first, ks[-1]: last}


def _means(rows: Iterable[Mapping[str, str]], measure: str, x: str) -> dict[int, dict[float, list[float]]]:
    """k → x → the values of all seeds; those of a flow that grew are left out with their cell."""
    found: dict[int, dict[float, list[float]]] = {}
    for row in rows:
        found.setdefault(int(row["k"]), {}).setdefault(float(row[x]), []).append(tidy.value(row[measure]))
    return {
        k: {at: values for at, values in sorted(by.items()) if all(v > 0 for v in values)} for k, by in found.items()
    }


@style.styled()
def draw(fixed_points: Artifact, *files: str | Path) -> None:
    """Draw an artefact of kind "fixed_points": a row for each process and dimension, of the class of shared weights.

    ODE error and sliced W₂ to the teacher, at the fixed points over m, and at one m along the flow from the denoiser (τ = 0) to the
    fixed point (∞); last, the distance once samples are moved and scaled to the teacher's mean and variance. Lines: geometric means over seeds, by k; bands: 95 % intervals of the two ends. Triangles: where CM's ODE error
    is significantly higher and its distance lower (filled) or the other way round (open). `files`: PDF, PNG and CSV to write.
    """
    fixed, moving, known, lines = (
        fixed_points.csv(f"{name}.csv") for name in ("fixed_points", "flow", "references", "summary")
    )
    kinds = {row["class"] for row in fixed}
    kind = next((name for name in CLASSES if name in kinds), None)
    if kind is None:
        raise UserError(f"{fixed_points.folder}: has no fixed points; delete the folder and run again")
    places = list(dict.fromkeys((row["process"], row["dimension"]) for row in fixed))
    looked = looks(sorted({int(row["k"]) for row in fixed}))
    sizes = sorted({int(row["m"]) for row in moving if row["class"] == kind})
    shown = sizes[len(sizes) // 2] if sizes else None
    groups = {unit: [panel for panel in own if shown or not panel[1]] for unit, own in PANELS.items()}
    abreast = sum(map(len, groups.values()))
    width = style.PAGE if shown else style.PAGE * 0.75
    chart = panels(len(places), abreast, (width, 0.7 + 1.25 * len(places)), (0.02, 0.04))
    told: set[str] = set()
    for row, (process, dimension) in zip(chart.grid, places, strict=True):

        def here(rows: Iterable[Mapping[str, str]], at: tuple[str, str] = (process, dimension)) -> list[Any]:
            return [r for r in rows if (r["process"], r["dimension"]) == at and r["class"] in (kind, "")]

        rest, along = here(fixed), [r for r in here(moving) if int(r["m"]) == shown]
        floor = [tidy.value(r["sw2_same"]) for r in here(known) if r["who"] == "teacher, other noise"]
        left = iter(row)
        for unit, group in groups.items():
            own: list[Any] = []
            drawn = []
            for measure, flows, _ in group:
                axes = next(left)
                if own:
                    axes.sharey(own[0])
                own.append(axes)
                place = {"process": process, "dimension": dimension, "class": kind, "measure": measure}
                if flows:
                    flow = _means(along, measure, "tau")
                    ends = _means([r for r in rest if int(r["m"]) == shown], measure, "m")
                    drawn += _along(axes, flow, {k: by.get(float(shown or 0), []) for k, by in ends.items()}, looked)
                    found = [(k, x, _point(values)) for k, by in flow.items() for x, values in by.items()]
                    chart.lines += [{**place, "m": shown, "tau": x, "k": k, **point} for k, x, point in found]
                else:
                    found = _over(axes, _means(rest, measure, "m"), looked)
                    drawn += found
                    chart.lines += [{**place, "m": int(x), "tau": math.inf, "k": k, **point} for k, x, point in found]
                if measure in VERDICTS and not flows:
                    said = {int(r["m"]): r[VERDICTS[measure]] for r in here(lines) if r["tau"] == "inf"}
                    told |= _marks(axes, said)
            _heights(own, [point["mean"] for _, _, point in drawn])
            own[0].set_ylabel(unit)
            if floor and unit != "ODE error":
                chart.shown.add(FLOOR)
                chart.marks.append((own, style.constants({FLOOR: geometric(floor)[0]}, 3)))
        row[0].set_ylabel(f"{PROCESSES[process]}, {dimension} dimensions\n{row[0].get_ylabel()}")
    for (_, flows, text), top, bottom in zip(
        itertools.chain(*groups.values()), chart.grid[0], chart.grid[-1], strict=True
    ):
        top.set_title(text.format(m=shown), fontsize=6.6, pad=5)
        bottom.set_xlabel("training time τ" if flows else "features m")
    names = {min(looked): "k = 1 (CM)", max(looked): f"k = {max(looked)} = N (Direct CM)"}
    entries: list[Any] = [style.handle(look, names.get(k, f"k = {k}")) for k, look in looked.items()]
    marked = {"inversion": "inversion", "opposite": "opposite of an inversion"}
    entries += [
        style.mark_handle(text, "v", markerfacecolor=style.INK if MARKS[name] else "white", markeredgecolor=style.INK)
        for name, text in marked.items()
        if name in told
    ]
    chart.legend(entries)
    chart.references()
    chart.save(COLUMNS, *files)


def _point(values: Sequence[float]) -> dict[str, Any]:
    mean, low, high = geometric(values)
    return {"mean": mean, "low": low, "high": high, "n": len(values)}


def _line(
    axes: Any, points: Mapping[float, dict[str, Any]], look: style.Look, end: bool, order: int, every: int = 1
) -> None:
    """One k: its line with marks, and a band where it is an end."""
    x, mean = list(points), [p["mean"] for p in points.values()]
    if end:
        low, high = ([p[side] for p in points.values()] for side in ("low", "high"))
        axes.fill_between(x, low, high, color=look.color, alpha=0.16, linewidth=0, zorder=2)
    axes.plot(x, mean, color=look.color, linestyle=look.line, linewidth=1.3 if end else 0.9, zorder=order)
    axes.scatter(
        x[::every],
        mean[::every],
        s=11 if end else 7,
        marker=look.marker,
        color=look.color,
        linewidths=0,
        zorder=order + 0.5,
    )


def _over(
    axes: Any, found: Mapping[int, Mapping[float, list[float]]], looked: Mapping[int, style.Look]
) -> list[tuple[int, float, dict[str, Any]]]:
    """The fixed points over m; returns what was drawn: k, m and the point."""
    out = []
    sizes = sorted({m for by in found.values() for m in by})
    for order, (k, look) in enumerate(looked.items()):
        points = {m: _point(values) for m, values in found.get(k, {}).items()}
        _line(axes, points, look, k in (min(looked), max(looked)), 5 + order)
        out += [(k, m, point) for m, point in points.items()]
    axes.set_xscale("log", base=2)
    # Every second label where there are many.
    axes.xaxis.set_major_locator(FixedLocator(sizes[:: 2 if len(sizes) > 4 else 1]))
    axes.xaxis.set_minor_locator(FixedLocator(sizes))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
    return out


def _along(
    axes: Any,
    found: Mapping[int, Mapping[float, list[float]]],
    rest: Mapping[int, Sequence[float]],
    looked: Mapping[int, style.Look],
) -> list[tuple[int, float, dict[str, Any]]]:
    """The flow over τ on a logarithmic axis, with 0 a decade before its first, and the fixed point beyond a gap."""
    taus = sorted({tau for by in found.values() for tau in by if tau > 0})
    begin, end = taus[0] / 10, taus[-1] * 30
    out = []
    for order, (k, look) in enumerate(looked.items()):
        points = {tau or begin: _point(values) for tau, values in found.get(k, {}).items()}
        _line(axes, points, look, k in (min(looked), max(looked)), 5 + order)
        if rest.get(k):
            last = _point(rest[k])
            axes.scatter([end], [last["mean"]], s=13, marker=look.marker, facecolors="white", edgecolors=look.color, linewidths=0.9, zorder=20 + order)  # fmt: skip
            out.append((k, end, last))
        out += [(k, tau, point) for tau, point in points.items()]
    axes.set_xscale("log")
    spelled = {begin: "0", end: "∞"} | {
        tau: f"$10^{{{round(math.log10(tau))}}}$" if tau > 1 else "1" for tau in taus[::2]
    }
    axes.xaxis.set_major_locator(FixedLocator(list(spelled)))
    axes.xaxis.set_minor_locator(NullLocator())
    near = {round(math.log10(at), 6): text for at, text in spelled.items()}
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: near.get(round(math.log10(value), 6), "")))
    return out


def _heights(own: Sequence[Any], means: Sequence[float]) -> None:
    """One logarithmic axis of heights for panels side by side, over what their lines span; bands may leave it."""
    low, high = min(means), max(means)
    room = (high / low) ** 0.07
    # 1, 2, 5, and 3 where they span little.
    steps = (1, 2, 5) if high / low > 8 else (1, 2, 3, 5)
    ticks = [
        s * 10.0**e for e in range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1) for s in steps
    ]
    own[0].set_yscale("log")
    own[0].set_ylim(low / room, high * room**2)
    own[0].yaxis.set_major_locator(
        FixedLocator(ticks if high / low < 50 else [t for t in ticks if f"{t:.0e}"[0] == "1"])
    )
    own[0].yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    own[0].yaxis.set_minor_formatter(NullFormatter())
    for axes in own[1:]:
        axes.tick_params(labelleft=False)


def _marks(axes: Any, said: Mapping[int, str]) -> set[str]:
    """Triangles at the top of a panel; returns which verdicts they are."""
    there = set()
    for m, verdict in said.items():
        if verdict in MARKS:
            there.add(verdict)
            axes.add_line(
                Line2D(
                    [m], [0.955], marker="v", markersize=3.9, markeredgewidth=0.9, markeredgecolor=style.INK, linestyle="",
                    markerfacecolor=style.INK if MARKS[verdict] else "white", transform=axes.get_xaxis_transform(), zorder=30,
                )
            )  # fmt: skip
    return there
