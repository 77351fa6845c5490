"""The verb `baselines`: what a student has to beat in ODE error, measured on the evaluation's noise as a student is.

    conditional_mean   the mean of the teacher's samples under the row's condition
    affine_map         that mean and one gain on the noise (`statistics.baselines`)
    untrained          the student's network before any training, one step from pure noise
    guided_step        x̂₀ of the guided teacher from pure noise

The first two are fitted on the teacher's samples under the floor's noise, and never see the evaluation's. Their condition is the
prompt, its label, or all rows together, whichever predicts the floor's own samples best when each is left out: where prompts have few
rows each, as captions of photographs have, that is the mean over more of them. Nothing is decoded: a baseline has what can be said of
final latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from directcm.config import Evaluation, Ode, Statistics
from directcm.config.specs import BASELINES
from directcm.diffusion.teachers import Conditioning
from directcm.distill.students import Student
from directcm.errors import UserError
from directcm.evaluation.common import numbered
from directcm.evaluation.metrics.evaluate import Comparison, Features, measured
from directcm.evaluation.metrics.samples import Prompt, read_prompts, read_samples
from directcm.evaluation.sampling import Evaluated
from directcm.runtime.artifacts import Artifact, Writer, new_artifact, new_collection, save_tensors
from directcm.runtime.blocks import batches
from directcm.runtime.progress import Progress
from directcm.statistics.baselines import Fit, best, indexed

# Network steps of a baseline, and whether it has a gain on the noise beside the mean.
STEPS = {"conditional_mean": 0, "affine_map": 0, "untrained": 1, "guided_step": 1}
GAIN = {"conditional_mean": False, "affine_map": True}
# (x at the start, times, conditioning) → final latents.
Step = Callable[[Tensor, Tensor, Conditioning], Tensor]


@dataclass(frozen=True)
class Made:
    """Final latents of all rows, as the metrics read them; there are no images."""

    made: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        return np.arange(len(self.made))

    def latents(self) -> np.ndarray:
        return self.made

    def image(self, index: int) -> tuple[Artifact, str]:
        raise UserError("baselines: no image is made of them; name metrics of final latents alone")


def groupings(prompts: Sequence[Prompt]) -> dict[str, np.ndarray]:
    """What a row's condition can be, from coarse to fine: all rows, its label, its prompt."""
    return {
        "all": np.zeros(len(prompts), dtype=np.int64),
        "label": indexed([prompt.label for prompt in prompts]),
        "prompt": indexed([prompt.text for prompt in prompts]),
    }


def fitted(floor: Sequence[Artifact], floor_noise: Artifact) -> dict[str, tuple[str, np.ndarray, Fit]]:
    """Of each fitted baseline its condition, the conditions of the rows (n,), and the fit; nothing here knows the evaluation's noise.

    `floor`: all shards of the teacher's samples under `floor_noise`. A row that is missing is a UserError.
    """
    prompts = read_prompts(floor_noise)
    samples = read_samples(floor, floor_noise, len(prompts))
    if samples.rows.size != len(prompts):
        raise UserError(
            f"{floor[0].folder}: its {len(floor)} shard(s) hold {samples.rows.size} of {len(prompts)} rows of "
            f"{floor_noise.folder}; pass all shards"
        )
    conditions, x, z = groupings(prompts), samples.latents(), floor_noise.arrays("noise.safetensors")["noise"]
    found = {}
    for name, gain in GAIN.items():
        by, fit = best(x, z, conditions, gain)
        found[name] = by, conditions[by], fit
    return found


def one_step(what: Evaluated, step: Step, progress: Progress) -> np.ndarray:
    """Final latents float32 (n, …) of one network step from the evaluation's pure noise."""
    start = what.model.process.start
    out = []
    with torch.no_grad():
        for some in batches(range(len(what.initial)), what.settings.batch_size):
            here = torch.tensor(some)
            cond = what.pool.conditioning(what.ids[here]).to(what.device)
            x = what.model.process.prior(what.initial[here]).to(what.device)
            t = torch.full((len(x),), start, dtype=torch.float64, device=x.device)
            out.append(step(x, t, cond).float().cpu())
            progress.update(len(some))
    return torch.cat(out).numpy()


def make(
    settings: Evaluation,
    statistics: Statistics,
    metrics: Sequence[str],
    ode: Ode,
    data: Artifact,
    teacher: Artifact,
    latents: Artifact,
    noise: Artifact,
    floor_noise: Artifact,
    reference: Sequence[Artifact],
    floor: Sequence[Artifact],
    seed: int,
    device: str,
    out: Path,
) -> None:
    """Write a collection of metrics, a part for each of BASELINES, as `evaluate` writes that of a student's sets.

    Those that are fitted hold their fit, fit.safetensors: `means` (G, …) and the conditions of the rows (n,), and say in metrics.json
    what their condition is and what the gain. `metrics`: of final latents alone. Raises UserError where floor and evaluation have not
    the same prompts, where they have the same noise, and where the floor is not of the reference's teacher and ODE.
    """
    what = Evaluated(settings, teacher, latents, noise, seed, device)
    if floor_noise.fingerprint == noise.fingerprint:
        raise UserError(
            f"{noise.folder}: is the floor's noise too; a baseline must not be fitted on what it is judged on"
        )
    if read_prompts(floor_noise) != read_prompts(noise):
        raise UserError(
            f"{noise.folder} and {floor_noise.folder}: two draws of noise need the same prompts row by row; run the noise steps again"
        )
    for shard in (*reference, *floor):
        if shard.settings.get("ode") != ode.axes() or shard.manifest["inputs"].get("teacher") != teacher.fingerprint:
            raise UserError(f"{shard.folder}: is not of this teacher and ODE; delete it and run again")
    compared = Comparison(
        metrics=metrics, row=BASELINES["conditional_mean"], run=ode, statistics=statistics, seed=seed, data=data, noise=noise,
        data_features={}, reference=reference,
    )  # fmt: skip
    fits = fitted(floor, floor_noise)
    model = what.model
    untrained = Student(model.start)
    progress = Progress("baselines", 2 * len(what.initial), "network step")
    steps: Mapping[str, Step] = {
        "untrained": lambda x, t, cond: untrained(x, t, cond),
        "guided_step": lambda x, t, cond: model.predict(x, t, cond, ode.w).x0,
    }

    def sets() -> Iterator[tuple[str, np.ndarray]]:
        """One after the other: of SDXL each is a gigabyte."""
        for name in BASELINES:
            if name in fits:
                _, groups, fit = fits[name]
                yield name, fit.predict(groups, what.initial.numpy())
            else:
                yield name, one_step(what, steps[name], progress)

    own = {"batch_size": settings.batch_size, "precision": settings.precision}
    for name, made in sets():
        mine = _with_row(compared, BASELINES[name])
        used = mine.inputs()
        found = measured(mine, Made(made), _no_features, used)
        about = mine.settings() | {"steps": STEPS[name], "step": None}
        if name in fits:
            used |= {"floor_noise": floor_noise, **numbered("floor", floor)}
        else:
            about |= own
            used |= {"teacher": teacher, "latents": latents}
        with new_artifact(out / name, "metrics", settings=about, inputs=used) as art:
            found.write(art, Made(made).rows, about, used, **_fit(art, *fits[name]) if name in fits else {})
    new_collection(
        out, "metrics", list(BASELINES), settings={}, inputs={**compared.inputs(), "floor_noise": floor_noise}
    )


def _with_row(compared: Comparison, row: str) -> Comparison:
    """The same comparison of another row; the reference and its directions are read and computed once."""
    other = replace(compared, row=row)
    vars(other).update(
        {name: getattr(compared, name) for name in ("prompts", "theirs", "latents", "directions", "groups")}
    )
    return other


def _fit(art: Writer, by: str, groups: np.ndarray, fit: Fit) -> dict[str, Any]:
    """Write a fit beside its metrics, and return what metrics.json says of it."""
    means = torch.from_numpy(fit.means.astype(np.float32))
    save_tensors(art / "fit.safetensors", {"means": means, "condition": torch.from_numpy(groups)})
    return {"fit": {"by": by, "conditions": len(means), "gain": fit.gain, "left_out": fit.left_out}}


def _no_features(extractor: str) -> Features:
    raise UserError(
        f"baselines: no image is made of them, and so no features by {extractor}; name metrics of final latents alone"
    )
