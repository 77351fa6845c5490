"""Small synthetic artefacts as the real steps write them, and the tidy tables of a whole grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from directcm.analysis.data.tidy import COMPARISON_COLUMNS, FLOOR, METRIC_COLUMNS, TEACHER
from directcm.config import Config, load_config
from directcm.config.registry import methods
from directcm.config.specs import METHODS, METRICS
from directcm.evaluation.sampling import set_name as part
from directcm.runtime.artifacts import (
    Artifact,
    new_artifact,
    new_collection,
    open_artifact,
    write_bytes,
    write_csv,
    write_json,
)
from directcm.runtime.rng import generator

RUN: dict[str, Any] = {
    "method": "cm", "solver": "ddim", "N": 50, "w": 3.0, "adapter": "lora64", "loss": "mse", "lr": 1e-4, "batch_size": 16,
    "pool": 4000, "steps": 250, "seed": 0,
}  # fmt: skip
Values = Mapping[tuple[str, str], float | None]


def distance(metric: str, reference: str) -> bool:
    """Whether a metric is a distance between two sets of features."""
    return reference in ("teacher", "other_noise", "data") and METRICS[metric].extractor is not None


class Factory:
    """Makes artefacts and tidy tables under a temporary folder."""

    # Of whole grids, by what they are of: making one takes as long as what many a test does with it.
    tables: ClassVar[dict[Any, dict[str, bytes]]] = {}

    def __init__(self, root: Path) -> None:
        self.root = root
        self.count = 0

    def folder(self, kind: str) -> Path:
        """A new folder's path."""
        self.count += 1
        return self.root / kind / f"{self.count:03d}"

    def metrics(
        self,
        row: str,
        run: Mapping[str, Any],
        values: Values,
        *,
        steps: int = 1,
        step: int | None = None,
        n: int = 8,
        dim: int | None = 64,
        flags: Mapping[tuple[str, str], list[str]] | None = None,
        noise: str = "a" * 64,
        folder: Path | None = None,
    ) -> Artifact:
        """A metrics artefact with given values."""
        folder = folder or self.folder("metrics")
        with new_artifact(folder, "metrics", settings={}) as out:
            items = [
                {
                    "metric": metric, "reference": reference, "value": value, "low": None, "high": None, "n": n,
                    "n_reference": n if distance(metric, reference) else None,
                    "dim": dim if distance(metric, reference) else None, "flags": (flags or {}).get((metric, reference), []),
                }
                for (metric, reference), value in values.items()
            ]  # fmt: skip
            content = {"row": row, "steps": steps, "run": dict(run), "metrics": items, "fingerprints": {"noise": noise}}
            write_json(out / "metrics.json", content | ({} if step is None else {"step": step}))
            write_csv(out / "per_sample.csv", [], ["row"])
        return open_artifact(folder, "metrics")

    def student_metrics(self, run: Mapping[str, Any], sets: Mapping[tuple[int, int], Values], **more: Any) -> Path:
        """A run's collection of metrics: (optimiser step, sampling steps) → values."""
        folder = self.folder("metrics")
        for (step, k), values in sets.items():
            name = folder / part(step, k)
            self.metrics(METHODS[run["method"]], run, values, step=step, steps=k, folder=name, **more)
        new_collection(folder, "metrics", [part(*one) for one in sets], settings={})
        return folder / "manifest.json"

    def student(
        self,
        run: Mapping[str, Any],
        *,
        targets: Iterable[Artifact] = (),
        seconds: Mapping[str, float] | None = None,
        snapshots: Iterable[int] = (),
        forwards: int = 0,
    ) -> Path:
        """A student's manifest; every step costs alike."""
        folder = self.folder("students")
        inputs = {f"targets_{i}": t for i, t in enumerate(targets)}
        settings = {"run": dict(run), "snapshots": list(snapshots)}
        with new_artifact(folder, "student", settings=settings, inputs=inputs) as out:
            about, (size, steps) = methods()[run["method"]], (run["batch_size"], run["steps"])
            made = {
                str(n): {
                    "student": round(about.forwards * n * size), "teacher": forwards * n // steps,
                    "endpoints": min(n * size, run["pool"]) if about.targets else 0,
                }
                for n in (*settings["snapshots"], steps)
            }  # fmt: skip
            write_json(out / "student.json", {"run": dict(run), "forwards": made})
            out.counts = {"pairs_drawn": steps * size, "trainable_parameters": 10, "teacher_forwards": forwards}
            out.provenance = {} if seconds is None else {"seconds_at": dict(seconds)}
        return folder / "manifest.json"

    def targets(
        self, ode: Mapping[str, Any], solved: int, forwards: int, seconds: float | None = 1.0, **provenance: Any
    ) -> Artifact:
        """A shard of targets."""
        folder = self.folder("targets")
        with new_artifact(folder, "targets", settings=dict(ode)) as out:
            write_json(out / "targets.json", self.count)
            out.counts = {"targets": solved, "teacher_forwards": forwards, "teacher_forwards_minimum": forwards}
            out.provenance = {"seconds": seconds, **provenance}
        return open_artifact(folder, "targets")

    def errors(self, run: Mapping[str, Any], lines: list[dict[str, Any]]) -> Path:
        """An errors artefact."""
        folder = self.folder("errors")
        with new_artifact(folder, "errors", settings={"run": dict(run)}) as out:
            write_csv(out / "errors.csv", lines, ["time", "space", "student", "solver", "total", "cross", "n"])
        return folder / "manifest.json"

    def noise(self, texts: list[str]) -> Artifact:
        """A noise artefact with prompts only."""
        with new_artifact(self.root / "noise", "noise", settings={}) as out:
            write_csv(
                out / "prompts.csv",
                [{"row": i, "id": i, "text": text, "label": ""} for i, text in enumerate(texts)],
                ["row", "id", "text", "label"],
            )
        return open_artifact(self.root / "noise", "noise")

    def samples(self, name: str, rows: list[int], side: int = 16) -> Artifact:
        """A samples artefact: one blot per row, shifted by name."""
        from PIL import Image

        with new_artifact(self.root / "samples" / name, "samples", settings={}) as out:
            for row in rows:
                y, x = np.mgrid[:side, :side] / side - 0.5
                centre = generator(7, "blot", row).normal(0, 0.15, 2) + 0.02 * len(name)
                blot = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 0.03)
                pixels = np.stack([blot, blot * 0.9, blot], -1)
                Image.fromarray((255 * pixels).astype(np.uint8)).save(out / f"images/{row:05d}.png")
        return open_artifact(self.root / "samples" / name, "samples")

    def curve(self, name: str, steps: int, level: float, seed: int) -> Path:
        """A student's curve.csv."""
        noise = generator(seed, name).normal(0, 0.35, (2, steps))
        loss = level * (0.3 + np.exp(-np.arange(steps) / 60)) * np.exp(noise[0])
        grad = 0.2 * level * (0.5 + np.exp(-np.arange(steps) / 40)) * np.exp(noise[1])
        path = self.root / "curves" / f"{name}{seed}.csv"
        write_csv(
            path,
            [
                {"step": i + 1, "loss": loss[i], "grad_norm": grad[i], "lr": 1e-4, "seconds": 0.05 * i}
                for i in range(steps)
            ],
            ["step", "loss", "grad_norm", "lr", "seconds"],
        )
        return path

    def tidy(
        self,
        config: Config,
        *,
        name: str = "tidy",
        change: Callable[[list[dict[str, Any]], list[dict[str, Any]]], None] | None = None,
        p: float = 0.01,
        p_prompts: float | None = 0.01,
        further: bool = False,
    ) -> tuple[Path, Path]:
        """metrics.csv and comparisons.csv of a whole grid, with values that depend on method, seed and sampling steps.

        CM's values are 1.2 times Direct CM's, every difference has the same p; `change` may edit the lines in place. `further`: with the
        main comparison's further metrics, as the scope "paper" has them.
        """
        folder = self.root / name
        key = (config.model_dump_json(), p, p_prompts, further)
        if change is not None or key not in self.tables:
            metrics, comparisons = _tidy(config, p, p_prompts, further)
            if change is not None:
                change(metrics, comparisons)
            lines = [{c: m.get(c) for c in METRIC_COLUMNS} for m in metrics]
            write_csv(folder / "metrics.csv", lines, METRIC_COLUMNS)
            write_csv(folder / "comparisons.csv", comparisons, COMPARISON_COLUMNS)
            if change is None:
                self.tables[key] = {f"{n}.csv": (folder / f"{n}.csv").read_bytes() for n in ("metrics", "comparisons")}
        else:
            for file, content in self.tables[key].items():
                write_bytes(folder / file, content)
        return folder / "metrics.csv", folder / "comparisons.csv"


def _tidy(
    config: Config, p: float, p_prompts: float | None, further: bool
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The lines of `Factory.tidy`, unchanged."""
    base = {
        "ode_error": 0.2, "fd_tiny": 12.0, "kid_tiny": 0.0031, "clip_tiny": 0.31, "quality_tiny": 4.2,
        "prompt_accuracy": 0.9, "fid": 99.0, "cmmd_tiny": 0.1,
    }  # fmt: skip
    own_pairs = [(m, r) for m in config.metric_names() for r in METRICS[m].references]
    besides = [(m, r) for m in config.further_names() for r in METRICS[m].references] if further else []
    main = set(config.main())

    def value(metric: str, reference: str) -> float:
        return base.get(metric, 0.5) * (1.5 if reference == "data" else 1.0)

    def line(metric: str, reference: str, number_: float | None) -> dict[str, Any]:
        far = distance(metric, reference)
        return {
            "metric": metric, "reference": reference, "value": number_, "n": 8, "n_reference": 8 if far else None,
            "dim": 64 if far else None, "flags": "",
        }  # fmt: skip

    metrics: list[dict[str, Any]] = []
    for ode in dict.fromkeys(run.ode for run in config.runs()):
        pairs = own_pairs + besides * (ode in {run.ode for run in main})
        for row in (TEACHER, FLOOR):
            metrics += [
                {"row": row, **ode.spelled, "sampling_steps": ode.N, **line(m, r, value(m, r) / 10)}
                for m, r in pairs
                if r != "teacher" or (row == FLOOR and METRICS[m].extractor)
            ]
    comparisons: list[dict[str, Any]] = []
    for run in config.runs():
        fewest = min(k for _, k in config.sets(run))
        for step, k in config.sets(run):
            pairs = own_pairs + besides * (run in main and k == fewest)
            factor = (1.2 if run.method == "cm" else 1.0) * (1 + 0.03 * run.seed) / k**0.25
            own = {**run.spelled, "row": METHODS[run.method], "step": step, "sampling_steps": k}
            metrics += [{**own, **line(m, r, value(m, r) * factor)} for m, r in pairs]
            # Parts are not compared.
            for m, r in [pair for pair in pairs if run.method == "cm" and not METRICS[pair[0]].part_of]:
                a, b = value(m, r) * factor, value(m, r) * factor / 1.2
                comparisons.append(
                    {
                        "what": "method", "a": "CM", "b": "Direct CM", **run.setting.spelled, "a_step": step,
                        "b_step": step, "sampling_steps": k, "metric": m, "reference": r, "mean_a": a, "mean_b": b,
                        "difference": a - b, "low": (a - b) / 2, "high": 1.5 * (a - b), "level": 0.95, "se_seeds": 0.1,
                        "se_prompts": 0.1, "df": 3.5, "p": p, "test": "permutation" if distance(m, r) else "bootstrap",
                        "p_prompts": p_prompts, "n": 8, "n_seeds": 3, "dim": 64 if distance(m, r) else None,
                        "seeds_agree": 3,
                    }
                )  # fmt: skip
    comparisons = list({tuple(c[n] for n in COMPARISON_COLUMNS[:17]): c for c in comparisons}.values())
    return metrics, comparisons


@pytest.fixture
def make(tmp_path: Path) -> Factory:
    return Factory(tmp_path / "artefacts")


@pytest.fixture
def config() -> Config:
    return load_config()


def configure(**settings: object) -> Config:
    """A configuration with a few keys changed."""
    from directcm.config import parse

    return parse(Config, settings)


@pytest.fixture(name="configure")
def _configure():
    return configure


@pytest.fixture
def run() -> dict[str, Any]:
    """The axes of a run."""
    return dict(RUN)
