"""A made-up run of the experiments on why, on disk: in which each hypothesis is true, or each is false."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from safetensors.numpy import save

from directcm.analysis.data.experiments import CLOSED, Experiment, read_experiments
from directcm.analysis.data.places import Grid, Place, needed
from directcm.config import Config, lora_rank, parse, paths
from directcm.config.reading import merge, read_yaml
from directcm.config.specs import METHODS, METRICS
from directcm.evaluation.metrics.ode_parts import ode_parts
from directcm.runtime.artifacts import Artifact, new_artifact, new_collection, open_artifact, write_csv, write_json
from directcm.runtime.rng import generator
from directcm.statistics.error_parts import principal
from directcm.statistics.frechet import frechet_distance

ROOT = Path(__file__).resolve().parents[2]
WHY = ROOT / "workflow/why.yaml"
N, DIM, SHAPE = 68, 3, (1, 2, 2)
METRIC_NAMES = ["ode_error", "fd_tiny", "clip_tiny"]
SIZES: Mapping[str, Any] = {
    "metrics": METRIC_NAMES, "further_metrics": [], "evaluation": {"samples": N, "shards": 2, "block": N // 2, "batch_size": N // 2},
    # Latents of 64 components, fewer than samples, which affine scaling needs.
    "teacher": {"micro_sdxl": {"vae": {"channels": [16, 16, 32]}}},
}  # fmt: skip


def configuration(*presets: str, **more: Any) -> Config:
    """config.yaml with overlays, evaluated on few samples by three metrics."""
    settings: dict[str, Any] = read_yaml(ROOT / "config.yaml")
    for name in presets:
        settings = merge(settings, read_yaml(ROOT / f"workflow/presets/{name}.yaml"))
    return parse(Config, merge(settings, {**SIZES, **more}))


class Results:
    """The artefacts of experiments below `root`. `true`: whether each hypothesis is."""

    def __init__(self, root: Path, config: Config, true: bool, experiments: Path = WHY) -> None:
        self.root, self.config, self.true = root, config, true
        self.grid, self.experiments = Grid(config), read_experiments(experiments)
        g = generator(0, "why world")
        self.prompt = g.standard_normal((N, DIM))
        self.latents = {0: g.standard_normal((N, *SHAPE)).astype(np.float32)}
        self.untrained = g.standard_normal((N, *SHAPE)).astype(np.float32)
        self.groups = np.arange(N) % 2
        self.kept: dict[str, Artifact] = {}

    # ------------------------------------------------- what is true

    def fd(self, place: Place) -> float:
        """FD-tiny to the teacher that a set is given."""
        run, tuned, true = place.run, dict(place.tuned), self.true
        direct = run.method == "direct_cm"
        base = 1.4 if direct else 1.0
        if tuned:
            left = {"mean": 0.1 if true else 0.38, "affine": 0.0, "slope": 0.3, "variance": 0.3, "raw": 0.4}[
                tuned.get("scaling", "raw")
            ]
            return 1.0 + left * direct + (0.3 * (tuned.get("relay") == "direct_cm") if "relay" in tuned else 0.0)
        if run.labels != "ode":
            return (1.6 if true else 1.0) if run.steps == 250 else (1.5 if true else 0.95)
        if run.method == "k_step":
            x = math.log2(run.k)
            best = {250: 2.3, 500: 3.3, 1000: 4.3}[place.step]
            return 0.8 + 0.03 * (x - best) ** 2 if true else 0.8 + 0.05 * x
        if run.density != "uniform":
            return base - (0.3 if true else 0.0) * direct
        if run.ema:
            return 0.8 + 0.1 * abs(math.log(self.far(place))) + (0 if true else 0.6) * (run.adapter == "lora64")
        if run.steps == 500:
            return 0.95 + 0.1 * direct
        return base

    def clip(self, place: Place) -> float:
        """CLIP-tiny's mean."""
        run, scaling = place.run, dict(place.tuned).get("scaling", "raw")
        direct = run.method == "direct_cm"
        if scaling == "variance":
            return 0.65 - (0.0 if self.true else 0.02) * direct
        if run.method == "k_step":
            return 0.636 if run.k == run.N else 0.652
        return 0.65 - 0.015 * direct

    def far(self, place: Place) -> float:
        """The mean squared distance that a student has travelled: by learning rate, rank and steps alike."""
        run = place.run
        rank = lora_rank(run.adapter) or 128
        return run.lr * rank / 4 * place.step / 0.025 * (1 + 0.01 * run.teacher_seed)

    # ------------------------------------------------- artefacts

    def _noise(self, place: Place, what: str, scale: float, *shape: int) -> np.ndarray:
        run = place.run
        g = generator(
            run.seed + 100 * run.teacher_seed,
            f"why {what} {run.at(seed=0, teacher_seed=0).key} {place.step} {place.tuned}",
        )
        return scale * g.standard_normal(shape or None)

    def student_latents(self, place: Place) -> np.ndarray:
        """Final latents: so far from the untrained start's, or with gain and bias about the teacher's."""
        own = self.latents[0]
        if place.run.ema:
            return self.untrained + math.sqrt(self.far(place)) * np.float32(1)
        wide = 0.3 if place.run.density != "uniform" else 0.6
        f = (1 + wide) * own + 0.1 + self._noise(place, "latents", 0.02, *own.shape)
        return f.astype(np.float32)

    def features(self, name: str, image: np.ndarray, of: str = "samples") -> Artifact:
        if name not in self.kept:
            settings = {"extractor": "clip_tiny", "fingerprint": "v", "of": of}
            folder = self.root / "features/clip_tiny" / name
            with new_artifact(folder, "features", settings=settings) as out:
                (out / "features.safetensors").write_bytes(save({"image": image.astype(np.float32)}))
                write_csv(out / "rows.csv", [{"row": row} for row in range(len(image))], ["row"])
            self.kept[name] = open_artifact(folder, "features")
        return self.kept[name]

    def with_latents(self, name: str, kind: str, latents: np.ndarray, rows: np.ndarray) -> Artifact:
        if name not in self.kept:
            with new_artifact(self.root / name, kind, settings={}) as out:
                (out / "latents.safetensors").write_bytes(
                    save({"latents": latents.astype(np.float32), "rows": rows.astype(np.int64)})
                )
            self.kept[name] = open_artifact(self.root / name, kind)
        return self.kept[name]

    def evaluated(self, place: Place, collection: str, part: str) -> None:
        """Samples, features and metrics of one set."""
        image = (
            self.prompt
            + math.sqrt(self.fd(place) / DIM) * (1 + self._noise(place, "unit", 0.003))
            + self._noise(place, "image", 0.01, N, DIM)
        )
        ode = paths.taught(self.config, place.run.ode).key
        teacher = self.features(f"teacher/{ode}", self.prompt)
        data = self.features("data", self.prompt + 0.1, "data")
        own = self.features(f"students/{collection}/{part}", image)
        latents, rows = self.student_latents(place), np.arange(N)
        sampled = self.with_latents(f"samples/{collection}/{part}", "samples", latents, rows)
        theirs = self.latents[0]
        error = ((latents.astype(float) - theirs) ** 2).reshape(N, -1).mean(axis=1)
        clip = (
            self.clip(place)
            + 0.02 * self.prompt[:, 0]
            - 0.02 * self.prompt[:, 0].mean()
            + self._noise(place, "clip", 0.003, N)
        )
        items = [self.item("ode_error", "teacher", error.mean()), self.item("clip_tiny", "prompt", clip.mean())]
        for reference, art in (("teacher", teacher), ("data", data)):
            found = frechet_distance(
                own.arrays("features.safetensors")["image"], art.arrays("features.safetensors")["image"]
            )
            items.append(self.item("fd_tiny", reference, found.value))
            items += [
                self.item(name, reference, getattr(found, METRICS[name].part))
                for name in ("fd_tiny_mean", "fd_tiny_covariance")
            ]
        apart = ode_parts(latents, rows, theirs, rows, self.groups, principal(theirs))
        items += [
            self.item(name, "teacher", getattr(apart, spec.part))
            for name, spec in METRICS.items()
            if spec.part_of == "ode_error"
        ]
        content = {
            "row": METHODS[place.run.method], "step": place.step, "steps": place.sampling_steps, "run": place.run.axes(), "metrics": items,
            **dict(place.tuned),
            "fingerprints": {
                "noise": "n" * 64, "samples_0": sampled.fingerprint, "features_samples_clip_tiny": own.fingerprint,
                "features_teacher_clip_tiny": teacher.fingerprint, "features_data_clip_tiny": data.fingerprint,
            },
        }  # fmt: skip
        with new_artifact(self.root / "metrics/students" / collection / part, "metrics", settings={}) as out:
            write_json(out / "metrics.json", content)
            lines = [{"row": i, "ode_error": float(error[i]), "clip_tiny": float(clip[i])} for i in range(N)]
            write_csv(out / "per_sample.csv", lines, ["row", "ode_error", "clip_tiny"])

    @staticmethod
    def item(metric: str, reference: str, value: float | None) -> dict[str, Any]:
        more = {"low": None, "high": None, "n": N, "n_reference": N, "dim": DIM, "flags": []}
        return {"metric": metric, "reference": reference, "value": None if value is None else float(value), **more}

    def make(self, name: str) -> None:
        """Everything that an experiment reads."""
        # Which versions made it is of no account here, and takes most of the time.
        with mock.patch("directcm.runtime.artifacts.provenance", return_value={"date": "2026-11-27T00:00:00Z"}):
            self._make(name)

    def _make(self, name: str) -> None:
        experiment = self.experiments[name]
        if experiment.closed:
            return self.closed(experiment)
        places: dict[str, dict[Place, None]] = {}
        for test in experiment.tests.values():
            by = experiment.by(test)
            for arm, unit in itertools.product(experiment.arms_of(test), self.grid.units(experiment, test)):
                place = self.grid.place(experiment, arm, unit, by)
                places.setdefault(place.collection, {})[place] = None
        for collection, own in places.items():
            parts = {}
            for place in own:
                said = {"step": place.step, "sampling_steps": place.sampling_steps, **dict(place.tuned)}
                parts[",".join(f"{key}~{value}" for key, value in said.items())] = place
            for part, place in parts.items():
                self.evaluated(place, collection, part)
            for folder, kind in (
                ("metrics/students", "metrics"),
                ("features/clip_tiny/students", "features"),
                ("samples", "samples"),
            ):
                new_collection(self.root / folder / collection, kind, list(parts), settings={})
        rows = np.arange(N)
        wanted = needed(experiment, self.config)
        for folder in wanted.get("untrained", ()):
            self.with_latents(folder, "untrained", self.untrained, rows)
        for folder in wanted.get("reference", ()):
            half = rows[: N // 2] if folder.endswith("~0") else rows[N // 2 :]
            self.with_latents(folder, "samples", self.latents[0][half], half)
        if "noise" in wanted and "noise" not in self.kept:
            with new_artifact(self.root / "noise", "noise", settings={}) as out:
                lines = [{"row": i, "id": i, "text": "x", "label": str(self.groups[i])} for i in range(N)]
                write_csv(out / "prompts.csv", lines, ["row", "id", "text", "label"])
            self.kept["noise"] = open_artifact(self.root / "noise", "noise")
        return None

    def closed(self, experiment: Experiment) -> None:
        """Fixed points and the flow."""
        rows: dict[str, list[dict[str, Any]]] = {"fixed_points.csv": [], "flow.csv": []}
        for arm, seed in itertools.product(experiment.made.values(), range(6)):
            g = generator(seed, f"fixed {arm}")
            inverted = 1 if self.true else -1
            x = math.log2(arm.k or 1) * inverted
            values = dict.fromkeys(CLOSED, 0.5) | {
                "ode_error": 0.5 - 0.02 * x + 0.005 * g.normal(), "sw2_teacher": 0.3 + 0.03 * x / (1 + (arm.m or 0) / 64) + 0.005 * g.normal(),
                "log_p0": -0.2 - 0.03 * x + 0.005 * g.normal(),
            }  # fmt: skip
            cell = {
                "process": arm.process,
                "dimension": arm.dimension,
                "class": arm.kind,
                "m": arm.m,
                "k": arm.k,
                "seed": seed,
            }
            if arm.tau is None:
                rows["fixed_points.csv"].append(cell | values)
            else:
                rows["flow.csv"].append(cell | {"tau": arm.tau} | values)
        with new_artifact(self.root / "fixed_points", "fixed_points", settings={}) as out:
            for name, lines in rows.items():
                write_csv(out / name, lines, list(lines[0]))
