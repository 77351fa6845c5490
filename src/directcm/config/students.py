"""The blocks `targets`, `train` and `students`: what is learnt from the teacher."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from directcm.config.base import (
    Adapter,
    Block,
    Count,
    Density,
    Fraction,
    Guidance,
    Inside,
    Labels,
    Loss,
    Method,
    NonNegative,
    Positive,
    Precision,
    Rate,
    Scaling,
    Solver,
    Weight,
    newer,
)
from directcm.config.specs import METHODS


class Targets(Block):
    """The ODE's endpoints from the start points of training."""

    shard: Positive = Field(
        2000,
        description="start points a job; a student's pool is solved by as many jobs as it takes, does not change a byte",
    )
    block: Positive = Field(1000, description="start points solved in one go, the unit of resuming; divides shard")
    batch_size: Positive = Field(
        64, description="start points of one teacher evaluation; on a CPU few enough for its caches are fastest"
    )


class Train(Block):
    """Students. adapter, loss, lr, batch_size, pool and steps are axes that lines of `students` can vary."""

    adapter: Adapter = Field("lora4", description="loraR (LoRA of rank and alpha R) or full (all U-Net weights)")
    loss: Loss = Field(
        "mse", description="mse, pseudo_huber: mean(sqrt(d² + c²) - c), l1: mean|d|, or lpips, of pixels alone"
    )
    lr: Rate = Field(1e-4, description="AdamW's learning rate, constant")
    batch_size: Positive = Field(16, description="start points a step, over all processes")
    pool: Positive = Field(
        4000,
        description="start points (latent, noise, time) there are; CM and Direct CM see the same ones in the same order; what learns from data alone draws pairs of its own",
    )
    steps: Positive = Field(250, description="optimiser steps")
    weight_decay: NonNegative = Field(1e-2, description="AdamW's weight decay")
    grad_clip: Rate = Field(1.0, description="largest gradient norm")
    ema: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="decay of an average of a student's weights that is evaluated in their place; null: the last weights",
    )
    huber_c: Rate = Field(1e-3, description="c of pseudo_huber")
    precision: Precision = Field("no", description="mixed precision of training: no, fp16 or bf16")
    gradient_checkpointing: bool | Literal["auto"] = Field(
        "auto", description="trade time for memory; auto: on a GPU what is faster of what fits, on a CPU off"
    )
    micro_batch: Positive | Literal["auto"] = Field(
        "auto", description="rows of one backward pass of a process; auto: on a GPU the most that fit, on a CPU all"
    )
    checkpoint_every: Positive = Field(100, description="steps between checkpoints")


class StudentAxes(Block):
    """One line of the grid: the product of these lists; what is left out comes from `ode` and `train`."""

    method: list[Method] = Field(["cm", "direct_cm"], min_length=1, description=", ".join(METHODS))
    solver: list[Solver] | None = Field(None, min_length=1)
    N: list[Positive] | None = Field(None, min_length=1)
    w: list[Guidance] | None = Field(None, min_length=1)
    adapter: list[Adapter] | None = Field(None, min_length=1)
    loss: list[Loss] | None = Field(None, min_length=1)
    lr: list[Rate] | None = Field(None, min_length=1)
    batch_size: list[Positive] | None = Field(None, min_length=1)
    pool: list[Positive] | None = Field(None, min_length=1)
    steps: list[Positive] | None = Field(None, min_length=1)
    seed: list[Count] = Field([0], min_length=1, description="training seeds")
    teacher_seed: list[Count] = newer(
        [0],
        min_length=1,
        description="0: the teacher of tables and figures; each other draws VAE, teacher and start points again (of a teacher that exists already the start points alone), for the table over teachers",
    )
    k: list[Positive] = newer(
        [1],
        min_length=1,
        description="solver steps from a start point to the target of k_step: 1 is CM's, N Direct CM's",
    )
    density: list[Density] = newer(
        ["uniform"],
        min_length=1,
        description="start times: uniform over the grid, or the share of them in its noisiest tenth (t ≥ 900 of 1000 on vp), uniform within either part",
    )
    weight: list[Weight] = newer(
        ["one"],
        min_length=1,
        description="weight of the loss by start time: one, or snr, α²/σ², with which ε is compared",
    )
    labels: list[Labels] = newer(
        ["ode"],
        min_length=1,
        description="what Direct CM regresses onto: ode, the solved endpoints; or METHOD or METHOD-ADAPTER (cm, cm-full), what the finished student of that method and of the next seed makes of the same start points",
    )
    ema: list[Fraction] = newer(
        [0.0],
        min_length=1,
        description="decay of an average of a student's weights that is evaluated; 0: as train.ema says",
    )
    snapshots: list[Positive] = Field(
        [],
        description="optimiser steps after which the student is kept and evaluated too; those beyond steps are left out",
    )
    sampling_steps: list[Positive] | None = Field(
        None, min_length=1, description="numbers of student steps, if others than evaluation.steps"
    )
    errors: bool = Field(False, description="measure the ODE error by start time too (see errors)")
    starts: list[Fraction] = newer(
        [0.0],
        min_length=1,
        description="shares of the grid at which the one step of a finished student starts, told that time of the same pure noise; 0: at pure noise's own",
    )
    scalings: list[Scaling] = newer(
        ["raw"],
        min_length=1,
        description="what is done to a finished student's samples of each of starts, fitted on the floor's noise: raw (nothing), mean (the teacher's mean), slope (the least-squares factor about their own mean), variance (the factor to the teacher's), affine (the teacher's mean and covariance)",
    )
    relays: list[Method] = newer(
        [],
        description="methods whose finished student, of the same setting and seed, takes the second of two steps after this one's first; its own method is the control",
    )
    relay_at: list[Inside] = newer(
        [0.1], min_length=1, description="shares of the grid at which the second step of relays is taken"
    )


def paper_grid() -> list[StudentAxes]:
    """The grid of the embedded default: the main comparison first, then the paper's sweeps, then ours."""
    five, three = [0, 1, 2, 3, 4], [0, 1, 2]
    along = [62, 125, 250]
    return [
        StudentAxes(seed=five, sampling_steps=[1, 2, 4, 8], errors=True),
        StudentAxes(N=[10, 20, 100], seed=five),
        StudentAxes(N=[10, 20, 100], seed=three, errors=True),
        StudentAxes(w=[1, 5, 8], seed=five),
        StudentAxes(solver=["euler", "heun"], seed=three),
        StudentAxes(adapter=["lora4"], pool=[8000], steps=[500], seed=five, snapshots=along),
        StudentAxes(adapter=["lora64", "full"], pool=[8000], steps=[500], seed=three, snapshots=along),
        StudentAxes(lr=[1e-3], seed=three),
        StudentAxes(loss=["pseudo_huber"], seed=three),
        # The teacher is random too: with the first line's seed 0, five teachers with one student each.
        StudentAxes(teacher_seed=[1, 2, 3, 4]),
    ]
