"""Small synthetic artefacts: metrics, noise and samples as the real steps write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from directcm.artifacts import Artifact, new_artifact, open_artifact, write_csv, write_json
from directcm.config import Config, load_config
from directcm.rng import generator
from directcm.specs import METRICS

ROW = {"cm": "CM", "direct_cm": "Direct CM"}


class Factory:
    """Makes artefacts under a temporary folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.count = 0

    def metrics(
        self,
        row: str,
        run: dict,
        values: dict[tuple[str, str], float | None],
        *,
        steps: int = 1,
        n: int = 8,
        dim: int | None = 64,
        samples: dict[str, list[float]] | None = None,
        flags: dict[tuple[str, str], list[str]] | None = None,
        noise: str = "a" * 64,
    ) -> Artifact:
        """A metrics artefact with given values and per-sample columns."""
        self.count += 1
        folder = self.root / "metrics" / f"{self.count:03d}"
        distances = {"teacher", "data"}
        with new_artifact(folder, "metrics", settings={}) as out:
            items = [
                {
                    "metric": metric,
                    "reference": reference,
                    "value": value,
                    "low": None,
                    "high": None,
                    "n": n,
                    "n_reference": n if reference in distances and METRICS[metric].extractor else None,
                    "dim": dim if reference in distances and METRICS[metric].extractor else None,
                    "flags": (flags or {}).get((metric, reference), []),
                }
                for (metric, reference), value in values.items()
            ]
            write_json(
                out / "metrics.json",
                {"row": row, "steps": steps, "run": run, "metrics": items, "fingerprints": {"noise": noise}},
            )
            columns = samples or {}
            length = max((len(v) for v in columns.values()), default=0)
            write_csv(
                out / "per_sample.csv",
                [{"row": i, **{name: v[i] for name, v in columns.items()}} for i in range(length)],
                ["row", *columns],
            )
        return open_artifact(folder, "metrics")

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

    def main(self, config: Config, offset: float = 0.0) -> list[Artifact]:
        """Everything that Table 1 needs for a configuration, with values that depend on method, seed and steps."""
        from directcm.analysis.selection import main_runs

        base = {
            ("ode_error", "teacher"): 0.2, ("fd_tiny", "teacher"): 12.0, ("fd_tiny", "data"): 20.0,
            ("kid_tiny", "teacher"): 0.0031, ("kid_tiny", "data"): -0.0102, ("clip_tiny", "prompt"): 0.31,
            ("quality_tiny", "none"): 4.2, ("prompt_accuracy", "prompt"): 0.9,
        }  # fmt: skip
        names = config.metric_names()
        base = {key: value for key, value in base.items() if key[0] in names}
        runs = main_runs(config)
        teacher = {k: v for k, v in base.items() if k[1] != "teacher"}
        out = [
            self.metrics(
                "Teacher", {k: runs[0][k] for k in ("solver", "N", "w")}, teacher, steps=runs[0]["N"],
                samples={"clip_tiny": [0.3] * 8},
            )
        ]  # fmt: skip
        for run in runs:
            for steps in config.evaluation.steps:
                method = run["method"] == "cm"
                factor = (1.2 if method else 1.0) * (1 + 0.03 * run["seed"]) / steps**0.25 + offset
                values = {k: v * factor for k, v in base.items()}
                columns = {
                    name: list(
                        base[name, METRICS[name].references[0]] * factor * (1 + 0.05 * np.cos(np.arange(8) + method))
                    )
                    for name in names
                    if METRICS[name].per_sample
                }
                out.append(self.metrics(ROW[run["method"]], dict(run), values, steps=steps, samples=columns))
        return out


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
