"""CM, Direct CM and the distances: losses worked out by hand, and what is blocked from gradients."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from directcm.config import registry
from directcm.diffusion.processes import VariancePreserving
from directcm.diffusion.solvers import make_solver
from directcm.diffusion.teachers import Gaussian
from directcm.distill import methods
from directcm.distill.methods import Batch, Context, cm, direct_cm
from directcm.runtime import rng


class Scale:
    """A student f(x, t) = a·x + b·t with free a and b."""

    process = VariancePreserving.scaled_linear()

    def __init__(self, a: float = 2.0, b: float = 0.1) -> None:
        self.a = torch.tensor(a, requires_grad=True)
        self.b = torch.tensor(b, requires_grad=True)
        self.asked: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor, t: Tensor, cond: object) -> Tensor:
        self.asked.append((x, t))
        return self.a * x + self.b * t.reshape(-1, 1).to(x)


class Half:
    """A solver whose step halves x, and remembers its guidance."""

    def step(self, teacher: object, x: Tensor, t: Tensor, s: Tensor, cond: object, w: float) -> Tensor:
        self.seen = (t, s, cond, w)
        return x / 2


X, T, S = torch.tensor([[1.0, 3.0], [2.0, -2.0]]), torch.tensor([20.0, 10.0]), torch.tensor([10.0, 0.0])


def test_cm_by_hand() -> None:
    student, solver = Scale(), Half()
    batch = Batch(X, T, S, None, None)
    losses = cm.loss(student, batch, Context(object(), solver, 3.0, methods.mse))
    # f(x, t) − f(x/2, s) = 2x + 0.1t − x − 0.1s = x + 1: row 0: (2, 4), row 1: (3, −1).
    torch.testing.assert_close(losses.detach(), torch.tensor([10.0, 5.0]))
    assert solver.seen == (batch.t, batch.t_next, None, 3.0)
    losses.sum().backward()
    # With the target fixed, ∂/∂a = Σ 2·mean(x·δ) and ∂/∂b = Σ 2·mean(t·δ).
    assert float(student.a.grad) == pytest.approx((1 * 2 + 3 * 4) + (2 * 3 + -2 * -1))
    assert float(student.b.grad) == pytest.approx(20 * (2 + 4) + 10 * (3 - 1))


def test_cms_target_is_the_online_network_without_gradient() -> None:
    student = Scale()
    seen = {}

    def distance(a: Tensor, b: Tensor) -> Tensor:
        seen.update(a=a, b=b)
        return methods.mse(a, b)

    cm.loss(student, Batch(X, T, S, None, None), Context(object(), Half(), 1.0, distance))
    assert seen["a"].requires_grad and not seen["b"].requires_grad
    torch.testing.assert_close(seen["b"], 2.0 * X / 2 + 0.1 * S.reshape(-1, 1))
    with torch.no_grad():
        student.a.fill_(5.0)
    cm.loss(student, Batch(X, T, S, None, None), Context(object(), Half(), 1.0, distance))
    torch.testing.assert_close(seen["b"], 5.0 * X / 2 + 0.1 * S.reshape(-1, 1))


@pytest.mark.parametrize("name", [name for name, method in registry.methods().items() if method.stored])
def test_a_stored_step_stands_for_the_teachers(name: str) -> None:
    """The loss with the step at hand, and the teacher's solver is not asked."""
    method, hparams = methods.load(name), {**registry.methods()[name].hparams}
    student, solver = Scale(), Half()
    context = Context(object(), solver, 3.0, methods.mse, hparams=hparams, ema_target=student)
    asks = getattr(method, "teacher_steps", lambda *_: 1)
    batch = Batch(X, T, S, None, X / 3, step=next(step for step in (9, 0) if asks(step, 10, context)), steps=10)
    asked = method.loss(student, batch, context)
    assert solver.seen
    stored = dataclasses.replace(batch, x_next=X / 2)
    none = Context(None, Half(), 3.0, methods.mse, hparams=hparams, ema_target=student)
    torch.testing.assert_close(method.loss(student, stored, none), asked)


def test_direct_cm_by_hand() -> None:
    student = Scale()
    endpoint = torch.tensor([[4.0, 7.0], [5.0, -4.0]])
    losses = direct_cm.loss(student, Batch(X, T, S, None, endpoint), Context(None, Half(), 3.0, methods.mse))
    # f(x, t) = (4, 8) and (5, −3).
    torch.testing.assert_close(losses.detach(), torch.tensor([0.5, 0.5]))
    assert len(student.asked) == 1 and torch.equal(student.asked[0][1], T)
    losses.sum().backward()
    assert float(student.a.grad) == pytest.approx(3.0 - 2.0)


def test_what_methods_say_they_need() -> None:
    assert (cm.TEACHER, cm.TARGETS) == (True, "")
    assert (direct_cm.TEACHER, direct_cm.TARGETS) == (False, "forward")
    assert methods.load("cm") is cm and methods.load("direct_cm") is direct_cm


def test_distances() -> None:
    a, b = torch.zeros(2, 1, 2, 2), torch.tensor([3.0, 0, 0, 1, 0, 0, 0, 0]).reshape(2, 1, 2, 2)
    torch.testing.assert_close(methods.mse(a, b), torch.tensor([2.5, 0.0]))
    huber = methods.pseudo_huber(1e-3)
    assert huber(a, a).tolist() == [0.0, 0.0]
    expected = ((9 + 1e-6) ** 0.5 + (1 + 1e-6) ** 0.5 + 2e-3 - 4e-3) / 4
    assert float(huber(a, b)[0]) == pytest.approx(expected, rel=1e-6)
    # |δ| for large differences, δ²/2c for small ones.
    one = torch.tensor([[100.0]])
    assert float(huber(one, 0 * one)) == pytest.approx(100 - 1e-3, rel=1e-6)
    small = torch.tensor([[1e-3]], dtype=torch.float64)
    assert float(methods.pseudo_huber(1.0)(small, 0 * small)) == pytest.approx(5e-7, rel=1e-4)
    torch.testing.assert_close(huber(a, b), huber(b, a))


def test_a_wrong_student_shows_in_both_losses() -> None:
    process = VariancePreserving.scaled_linear()
    teacher = Gaussian(process, torch.zeros(3), 0.5)
    x = rng.normal(0, "x", range(16), (3,))
    t, s = torch.full((16,), 500.0), torch.full((16,), 480.0)
    batch = Batch(x, t, s, None, teacher.flow(x, t, torch.zeros(16)))
    context = Context(teacher, make_solver("ddim"), 1.0, methods.mse)

    def sign(x: Tensor, t: Tensor, cond: object) -> Tensor:
        return x * (1 + t.reshape(-1, 1).to(x) / 100)

    assert float(cm.loss(sign, batch, context).mean()) > 1e-2
    assert float(direct_cm.loss(sign, batch, context).mean()) > 1e-2
