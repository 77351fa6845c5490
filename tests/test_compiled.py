"""torch.compile of repeated blocks: one graph with and one without gradient, and the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from directcm.diffusion.teachers import load
from directcm.distill import students
from directcm.distill.encode import Latents
from directcm.runtime import compiled


@pytest.fixture
def traced() -> Iterator[Any]:
    """Blocks are traced as for a GPU and run as they are; torch's counters of that."""
    from torch._dynamo import config
    from torch._dynamo.utils import counters

    before = config.recompile_limit
    torch._dynamo.reset()
    counters.clear()
    compiled.enable("on", "cpu", backend="eager")
    yield counters
    compiled.enable("off", "cpu")
    config.recompile_limit = before
    torch._dynamo.reset()


def outputs(tiny: Any, sizes: tuple[int, ...]) -> list[torch.Tensor]:
    """What a CM's step does, for batches of these sizes: the guided teacher, the target, the student and its gradient."""
    teacher = load(tiny.teacher)
    student = students.make_student(teacher, "lora4", 0)
    pool, found = Latents(tiny.latents), []
    first = next(p for n, p in student.teacher.network.named_parameters() if "lora_B" in n)
    for size in sizes:
        x = torch.randn(size, *pool.shape, generator=torch.Generator().manual_seed(size))
        t, cond = torch.full((size,), 500.0), pool.conditioning(torch.arange(size))
        with torch.no_grad():
            found += [teacher.predict(x, t, cond, 3.0).x0, student(x, t, cond)]
        out = student(x, t, cond)
        out.square().mean().backward()
        found += [out.detach(), first.grad.clone()]
    return found


def test_two_graphs_and_the_same_numbers(tiny: Any, traced: Any) -> None:
    compiled.enable("off", "cpu")
    want = outputs(tiny, (4, 4, 3, 2))
    assert not traced["stats"]
    compiled.enable("on", "cpu", backend="eager")
    got = outputs(tiny, (4, 4, 3, 2))
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)
    # With gradient, without, and without for any number of rows.
    assert 2 <= traced["stats"]["unique_graphs"] <= 4
    assert not traced["graph_break"] and not traced["unimplemented"]


@pytest.mark.parametrize(
    ("wanted", "device", "on"),
    [("auto", "cuda", True), ("auto", "cpu", False), ("off", "cuda", False), ("on", "cpu", True)],
)
def test_auto_means_on_a_gpu(wanted: str, device: str, on: bool) -> None:
    compiled.enable(wanted, device)
    assert compiled.enabled() is on
    compiled.enable("off", "cpu")
