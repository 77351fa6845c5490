"""The exact teacher: one Gaussian's formula, brute force, a finite data set, labels, and the orders of solvers on its ODE."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from directcm.diffusion.processes import Process, VarianceExploding, VariancePreserving
from directcm.diffusion.solvers import make_solver
from directcm.diffusion.teachers import Conditioning, Gaussian
from directcm.diffusion.teachers.mixture import Mixture
from directcm.runtime import rng

PROCESSES = {"vp": VariancePreserving.scaled_linear(), "ve": VarianceExploding()}
TIMES = {"vp": [1, 10, 300, 999], "ve": [0.002, 0.1, 1.0, 80.0]}


def times(name: str) -> Tensor:
    return torch.tensor(TIMES[name], dtype=torch.float64)


@pytest.mark.parametrize("name", PROCESSES)
def test_one_component_is_the_gaussian(name: str) -> None:
    process, t = PROCESSES[name], times(name)
    mean = torch.tensor([0.3, -0.7]).double()
    x = rng.normal(0, "x", range(4), (2,)).double() * 3
    one = Mixture(process, mean[None], 0.4)
    torch.testing.assert_close(
        one.noise(x, t, None), Gaussian(process, mean, 0.4).noise(x, t, None), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("name", PROCESSES)
def test_against_the_gradient_of_the_log_density(name: str) -> None:
    """ε̂ = −σ ∇ log p_t, by automatic differentiation of the density itself."""
    process, t = PROCESSES[name], times(name)[1:3]
    means, scales = (
        torch.tensor([[0.0, 1.0], [2.0, -1.0], [-1.0, -1.0]]).double(),
        torch.tensor([0.2, 0.5, 0.1]).double(),
    )
    weights = torch.tensor([0.5, 0.3, 0.2])
    x = rng.normal(1, "x", range(2), (2,)).double().requires_grad_()
    alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
    variance = alpha**2 * scales**2 + sigma**2
    square = ((x[:, None] - alpha[:, None] * means) ** 2).sum(2)
    log = (weights.double().log() - square / (2 * variance) - variance.log()).logsumexp(1)
    score = torch.autograd.grad(log.sum(), x)[0]
    torch.testing.assert_close(Mixture(process, means, scales, weights).noise(x.detach(), t, None), -sigma * score)


@pytest.mark.parametrize("name", PROCESSES)
def test_points_end_in_points(name: str) -> None:
    """With points for components the ODE's endpoint is one of them, and near a point its own responsibility is all."""
    process = PROCESSES[name]
    points = rng.normal(2, "p", range(5), (1, 2, 2)).double()
    teacher = Mixture(process, points)
    share, mean = teacher.posterior(points + 1e-4, times(name)[:1].expand(5), None)
    torch.testing.assert_close(share, torch.eye(5).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(mean, points, rtol=0, atol=1e-6)
    x = process.prior(rng.normal(3, "x", range(6), (1, 2, 2)).double())
    for t, s in itertools.pairwise(process.grid(100)):
        x = make_solver("ddim").step(teacher, x, t.expand(6), s.expand(6), None, 1.0).double()
    nearest = (x[:, None] - points[None]).flatten(2).norm(dim=2).min(1).values
    assert float(nearest.max()) < 0.01


def test_labels_restrict_and_none_does_not() -> None:
    process, t = PROCESSES["ve"], torch.tensor([1.0, 1.0, 1.0])
    means = torch.tensor([[0.0], [1.0], [5.0]]).double()
    teacher = Mixture(process, means, labels=torch.tensor([0, 0, 1]))
    x = torch.zeros(3, 1).double()
    share, mean = teacher.posterior(x, t, Conditioning({"label": torch.tensor([0, 1, -1])}))
    assert share[0, 2] == 0 and share[1].tolist() == [0, 0, 1] and bool((share[2] > 0).all())
    assert float(mean[1, 0]) == 5.0
    none = teacher.unconditional(Conditioning({"label": torch.tensor([0, 1, 1])}))
    assert none is not None
    torch.testing.assert_close(teacher.noise(x, t, none), teacher.noise(x, t, None))


@pytest.mark.parametrize(("scales", "weights"), [(-0.1, None), (0.1, torch.tensor([1.0, 0.0])), (0.1, torch.ones(3))])
def test_components_that_are_none(scales: float, weights: Tensor | None) -> None:
    with pytest.raises(ValueError, match="weight above 0"):
        Mixture(PROCESSES["vp"], torch.zeros(2, 1), scales, weights)


class Exact(Gaussian):
    """Without the contract's float32, so that rounding does not hide an order."""

    def predict(self, x, t, cond, guidance=1.0):  # type: ignore[no-untyped-def]
        from directcm.diffusion.teachers import Prediction

        eps = self.noise(x, t, cond)
        return Prediction(self.process.clean(x, eps, t), eps)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("edm_heun", 2)])
def test_orders_on_the_variance_exploding_process(solver: str, order: int) -> None:
    """On one Gaussian, whose flow map is known: the slope of log error over log N."""
    process: Process = VarianceExploding()
    teacher = Exact(process, torch.tensor([0.3, -0.2]).double(), 0.5)
    start = process.prior(rng.normal(1, "x", range(4), (2,)).double())
    ends = torch.full((4,), process.start).double(), torch.full((4,), process.end).double()
    goal = teacher.flow(start, *ends)
    sizes, errors = (40, 80, 160, 320), []
    for n in sizes:
        x = start
        for t, s in itertools.pairwise(process.grid(n)):
            x = make_solver(solver).step(teacher, x, t.expand(4), s.expand(4), None, 1.0)
        errors.append(float((x - goal).abs().mean()))
    assert -np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(order, abs=0.15)
