"""Tidy tables of made-up students: realistic in size and shape, every number a plain function of its run.

The values are `VALUE`'s: what a test expects can be computed from it by hand.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from directcm.analysis import needs
from directcm.config import SETTING_AXES, Config, Setting
from directcm.config.registry import FIRST
from directcm.config.specs import METHODS, METRICS
from directcm.runtime.artifacts import Artifact, new_artifact, open_artifact, write_csv
from directcm.runtime.rng import generator

# The paper's two methods.
PAPERS = {name: METHODS[name] for name in FIRST}
MAIN = Setting(
    solver="ddim", N=50, w=3.0, adapter="lora64", loss="mse", lr=1e-4, batch_size=16, pool=4000,
    steps=250,
)  # fmt: skip
PAIRS = [
    ("ode_error", "teacher"), ("fd_tiny", "teacher"), ("fd_tiny", "data"), ("kid_tiny", "teacher"), ("kid_tiny", "data"),
    ("clip_tiny", "prompt"), ("quality_tiny", "none"), ("prompt_accuracy", "prompt"),
]  # fmt: skip
METRIC_COLUMNS = [
    "row", "method", *SETTING_AXES, "seed", "step", "sampling_steps", "metric", "reference", "value", "low", "high", "n",
    "n_reference", "dim", "flags",
]  # fmt: skip
COMPARISON_COLUMNS = [
    "what", "a", "b", *SETTING_AXES, "a_step", "b_step", "sampling_steps", "metric", "reference", "mean_a", "mean_b",
    "difference", "low", "high", "level", "se_seeds", "se_prompts", "df", "p", "test", "p_prompts", "n", "n_seeds", "dim",
    "seeds_agree",
]  # fmt: skip
STUDENT_COLUMNS = [
    "method", *SETTING_AXES, "seed", "step", "trainable_parameters", "pairs", "distinct_pairs", "student_forwards",
    "student_backwards", "teacher_forwards", "target_forwards", "seconds", "target_seconds",
]  # fmt: skip
ERROR_COLUMNS = [
    "method", *SETTING_AXES, "seed", "time", "space", "student_error", "solver_error", "total_error",
    "cross_term", "n",
]  # fmt: skip
SNAPSHOTS = (62, 125, 250, 500, 1000)


def rank(adapter: str) -> float:
    return {"full": 3.0}.get(adapter) or math.log2(float(adapter.removeprefix("lora"))) / 3


def ode_error(method: str, setting: Setting, step: int) -> float:
    """ODE error without seeds: falls with training and capacity, rises with w; CM ahead of neither."""
    gap = 0.12 * math.log10(1 + 10 * setting.lr / 1e-4) * (1 if method == "cm" else 0)
    return 0.55 + 0.6 * (step / 62) ** -0.35 + 0.04 * setting.w + gap - 0.06 * rank(setting.adapter)


def value(method: str, setting: Setting, seed: int, step: int, metric: str, reference: str) -> float:
    """A student's value; the seed moves it by a few per cent, the same for both methods up to a third of that."""
    error = ode_error(method, setting, step)
    direct = method == "direct_cm"
    # Direct CM's FD turns up late in training with little capacity: the paper's inversion.
    blur = 0.55 * max(0.0, math.log(step / 180)) / rank(setting.adapter) if direct else 0.0
    fd = 0.35 + 1.9 * (step / 62) ** -0.6 + (0.0 if direct else 0.5) + blur + 0.35 * abs(math.log(setting.N / 50))
    base = {
        "ode_error": error, "fd_tiny": fd + (0.3 if reference == "data" else 0.0), "kid_tiny": 0.03 * (fd - 0.6),
        "clip_tiny": 0.67 - 0.03 * fd, "quality_tiny": 9.4 - 0.1 * fd, "prompt_accuracy": 1 - 0.012 * fd,
    }[metric]  # fmt: skip
    common = generator(seed, "shared", 1).normal()
    own = generator(seed, "own", 2, int(direct)).normal()
    spread = {"ode_error": 0.015, "fd_tiny": 0.12, "kid_tiny": 0.006, "clip_tiny": 0.004, "quality_tiny": 0.02}.get(
        metric, 0.004
    )
    return base + spread * (common + 0.35 * own)


TEACHER = {
    ("fd_tiny", "data"): 0.8034, ("kid_tiny", "data"): 0.0136, ("clip_tiny", "prompt"): 0.6716, ("quality_tiny", "none"): 9.39,
    ("prompt_accuracy", "prompt"): 0.999,
}  # fmt: skip
FLOOR = {**TEACHER, ("fd_tiny", "teacher"): 0.09, ("kid_tiny", "teacher"): -0.0004, ("fd_tiny", "data"): 0.83}


def default_sets() -> list[tuple[Setting, list[int], list[int]]]:
    """(setting, seeds, steps evaluated): main with five seeds, sweeps, budgets with snapshots, loss and learning rate."""
    out: list[tuple[Setting, list[int], list[int]]] = [(MAIN, [0, 1, 2, 3, 4], [250])]
    out += [(MAIN.at(N=N), [0, 1, 2], [250]) for N in (10, 20, 100)]
    out += [(MAIN.at(w=w), [0, 1, 2], [250]) for w in (1.0, 5.0, 8.0)]
    long = MAIN.at(steps=1000, pool=16000)
    out += [(long.at(adapter=a), [0, 1, 2], list(SNAPSHOTS)) for a in ("lora4", "lora16", "lora64", "full")]
    out += [(MAIN.at(loss="pseudo_huber"), [0, 1, 2], [250])]
    out += [(MAIN.at(lr=lr), [0, 1, 2], [250]) for lr in (3e-5, 3e-4, 1e-3)]
    return out


def metrics(
    path: Path,
    sets: Iterable[tuple[dict[str, Any], list[int], list[int]]] | None = None,
    pairs: Iterable[tuple[str, str]] = PAIRS,
    values: Mapping[tuple[str, str], float] = TEACHER,
    floor: Mapping[tuple[str, str], float] = FLOOR,
    sampling: Iterable[int] = (1, 4),
) -> Path:
    """metrics.csv; finished students also with several sampling steps, which figures must leave out."""
    sets = default_sets() if sets is None else list(sets)
    rows: list[dict[str, Any]] = []
    odes = {(s.solver, s.N, s.w) for s, *_ in sets}
    for row, own in (("Teacher", values), ("Teacher, other noise", floor)):
        for solver, N, w in sorted(odes):
            for (metric, reference), v in own.items():
                shift = 0.02 * abs(math.log(N / 50)) + 0.01 * w
                rows.append(
                    {
                        "row": row, "solver": solver, "N": N, "w": f"{w:g}", "sampling_steps": N, "metric": metric,
                        "reference": reference, "value": v + (shift if metric == "fd_tiny" and reference == "data" else 0), "n": 1024,
                    }
                )  # fmt: skip
    for (setting, seeds, steps), (method, label) in itertools.product(sets, PAPERS.items()):
        for seed, step, (metric, reference) in itertools.product(seeds, steps, pairs):
            for k in sampling if step == setting.steps else [min(sampling)]:
                v = value(method, setting, seed, step, metric, reference) + 100 * (k > 1)
                rows.append(
                    {
                        "row": label, "method": method, **setting.spelled, "seed": seed, "step": step, "sampling_steps": k,
                        "metric": metric, "reference": reference, "value": v, "n": 1024,
                    }
                )  # fmt: skip
    write_csv(path, rows, METRIC_COLUMNS)
    return path


def comparisons(
    path: Path,
    sets: Iterable[tuple[dict[str, Any], list[int], list[int]]] | None = None,
    pairs: Iterable[tuple[str, str]] = PAIRS,
    p: Mapping[tuple[str, int, float, str], float] | None = None,
) -> Path:
    """comparisons.csv: CM − Direct CM, p from a t over seeds; `p` overrides it by (adapter, step, w, metric)."""
    from scipy.stats import t as student_t

    rows = []
    for setting, seeds, steps in default_sets() if sets is None else sets:
        for step, (metric, reference) in itertools.product(steps, pairs):
            a = [value("cm", setting, s, step, metric, reference) for s in seeds]
            b = [value("direct_cm", setting, s, step, metric, reference) for s in seeds]
            d = [x - y for x, y in zip(a, b, strict=True)]
            mean = sum(d) / len(d)
            se = (
                math.sqrt(sum((x - mean) ** 2 for x in d) / max(1, len(d) - 1) / len(d) + (0.02 * abs(mean)) ** 2)
                or 1e-9
            )
            df = max(2, len(d) - 1) + 2
            half = float(student_t.ppf(0.975, df)) * se
            own = 2 * float(student_t.sf(abs(mean) / se, df))
            rows.append(
                {
                    "what": "method", "a": "CM", "b": "Direct CM", **setting.spelled, "a_step": step, "b_step": step,
                    "sampling_steps": 1, "metric": metric, "reference": reference, "mean_a": sum(a) / len(a),
                    "mean_b": sum(b) / len(b), "difference": mean, "low": mean - half, "high": mean + half, "level": 0.95,
                    "df": df, "p": (p or {}).get((setting.adapter, step, setting.w, metric), own), "n": 1024,
                    "n_seeds": len(seeds),
                }
            )  # fmt: skip
            # Distractors: the same row along training, and at more sampling steps.
            rows.append({**rows[-1], "what": "along", "b": "CM", "a_step": 1000, "b_step": step, "difference": 99})
            rows.append({**rows[-2], "sampling_steps": 4, "difference": 77, "p": 0.5})
    write_csv(path, rows, COMPARISON_COLUMNS)
    return path


def students(
    path: Path, sets: Iterable[tuple[dict[str, Any], list[int], list[int]]] | None = None, seconds: bool = True
) -> Path:
    """students.csv."""
    rows = []
    for (setting, seeds, steps), method in itertools.product(default_sets() if sets is None else sets, PAPERS):
        for seed, step in itertools.product(seeds, steps):
            pairs = step * setting.batch_size
            cm = method == "cm"
            guided = 2 if setting.w != 1 else 1
            rows.append(
                {
                    "method": method, **setting.spelled, "seed": seed, "step": step, "trainable_parameters": 100000,
                    "pairs": pairs, "distinct_pairs": min(pairs, setting.pool), "student_forwards": pairs * (2 if cm else 1),
                    "student_backwards": pairs, "teacher_forwards": guided * pairs if cm else 0,
                    "target_forwards": 0 if cm else guided * 25 * min(pairs, setting.pool),
                    "seconds": step * (0.12 if cm else 0.05) * (1 + 0.02 * seed) if seconds else None,
                    "target_seconds": (0.0 if cm else 0.018 * min(pairs, setting.pool)) if seconds else None,
                }
            )  # fmt: skip
    write_csv(path, rows, STUDENT_COLUMNS)
    return path


def errors(path: Path, values: Iterable[int] = (10, 20, 50, 100), seeds: Iterable[int] = (0, 1, 2)) -> Path:
    """errors.csv, in the main setting over N, with one setting that must not be drawn."""
    rows = []
    settings = [MAIN.at(N=N) for N in values] + [MAIN.at(adapter="full")]
    for setting, method, seed, time, space in itertools.product(
        settings, FIRST, seeds, range(100, 1001, 100), ("latent", "pixel")
    ):
        scale = (1.0 if space == "latent" else 0.06) * (9 if setting.adapter == "full" else 1)
        t = time / 1000
        noise = 1 + 0.06 * generator(seed, "error", time, int(method == "cm")).normal()
        student = scale * (0.004 + 0.75 * t**2.2 + (0.1 * t if method == "cm" else 0)) * noise
        solver = scale * 0.35 * t**1.5 * (10 / setting.N) ** 1.6
        cross = 0.5 * math.sqrt(student * solver) * (t - 0.6)
        rows.append(
            {
                "method": method, **setting.spelled, "seed": seed, "time": time, "space": space, "student_error": student,
                "solver_error": solver, "total_error": student + solver + cross, "cross_term": cross, "n": 512,
            }
        )  # fmt: skip
    write_csv(path, rows, ERROR_COLUMNS)
    return path


assert {m for m, _ in PAIRS} <= set(METRICS)


def trajectories(
    folder: Path, count: int = 8, N: int = 50, shape: tuple[int, ...] = (4, 8, 8), background: int = 200
) -> Artifact:
    """An artefact of trajectories: bent lines from noise to clustered data, from start times spread over the grid."""
    import numpy as np

    d = math.prod(shape)
    means = generator(1, "means").normal(0, 0.8, (6, d))
    data = means[np.arange(background) % 6] + 0.25 * generator(1, "data").normal(0, 1, (background, d))
    times = np.linspace(1000, 0, N + 1)
    s = times[:, None] / 1000
    start = np.arange(count) * N // (2 * count)
    states = np.zeros((count, N + 1, d), dtype=np.float32)
    for i in range(count):
        own, to = generator(2, "noise", i).normal(0, 1, d), means[i % 6] + 0.2 * generator(3, "end", i).normal(0, 1, d)
        bend = 0.7 * means[(i + 2) % 6]
        path = (1 - s) * to + s * own + bend * s * (1 - s)
        states[i] = np.where(np.arange(N + 1)[:, None] >= start[i], path, 0)
    with new_artifact(folder, "trajectories", settings={"N": N}) as out:
        from safetensors.numpy import save_file

        save_file(
            {
                "states": states.reshape(count, N + 1, *shape), "start": start.astype(np.int64), "times": times.astype(np.float32),
                "x0": data[:count].reshape(count, *shape).astype(np.float32), "index": np.arange(count),
                "background": data.reshape(background, *shape).astype(np.float32),
            },
            str(out / "trajectories.safetensors"),
        )  # fmt: skip
    return open_artifact(folder, "trajectories")


# ----------------------------------------------------------------- looking at figures


def texts(figure: Any) -> list[tuple[str, Any]]:
    """Every text that is drawn, with its extent in pixels. Empty ones and ticks outside the limits are not drawn."""
    from matplotlib.axis import Axis
    from matplotlib.text import Text

    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    found = []
    ticks = {id(t.label1) for a in figure.findobj(Axis) for t in (*a.get_major_ticks(), *a.get_minor_ticks())}
    ticks |= {id(t.label2) for a in figure.findobj(Axis) for t in (*a.get_major_ticks(), *a.get_minor_ticks())}
    for axis in figure.findobj(Axis):
        if axis.axes.axison:
            found += [t.label1 for t in axis._update_ticks() if t.label1.get_visible()]
    found += [t for t in figure.findobj(Text) if id(t) not in ticks and t.get_visible()]
    return [(t.get_text(), t.get_window_extent(renderer)) for t in found if t.get_text().strip()]


def legible(figure: Any) -> list[str]:
    """The texts; none is clipped by the canvas, and no two lie on each other."""
    import itertools

    found = texts(figure)
    width, height = figure.bbox.width, figure.bbox.height
    for text, box in found:
        assert box.x0 >= -0.5 and box.y0 >= -0.5 and box.x1 <= width + 0.5 and box.y1 <= height + 0.5, (text, box)
    for (a, first), (b, second) in itertools.combinations(found, 2):
        wide = min(first.x1, second.x1) - max(first.x0, second.x0)
        high = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert wide <= 1.5 or high <= 1.5, (a, b, wide, high)
    return [text for text, _ in found]


def spy(monkeypatch: Any) -> list[Any]:
    """The figures that are saved from now on, with their `words`, each checked to be legible before it is closed."""
    from directcm.analysis.figures import style

    saved: list[Any] = []
    save = style.save

    def look(figure: Any, *paths: Any) -> None:
        figure.words = legible(figure)
        saved.append(figure)
        # It is laid out: once more for each file takes as long again.
        figure.set_layout_engine("none")
        save(figure, *paths)

    monkeypatch.setattr(style, "save", look)
    return saved


def outputs(folder: Path, name: str) -> list[Path]:
    """NAME.pdf, NAME.png, NAME.csv in a folder."""
    return [folder / f"{name}.{kind}" for kind in ("pdf", "png", "csv")]


def alike(folder: Path, a: str, b: str) -> bool:
    """Whether two figures are byte for byte the same, in all three files."""
    return all(x.read_bytes() == y.read_bytes() for x, y in zip(outputs(folder, a), outputs(folder, b), strict=True))


def available(config: Config) -> list[str]:
    """The names of the tables that a configuration has something for."""
    return [one.name for one in needs.available(config) if one.kind == "table"]


def table(name: str, *taken: Any) -> None:
    """Write the table of a name: of what it takes, a configuration, to a CSV."""
    import_module(f"directcm.analysis.tables.{name}").write(*taken)
