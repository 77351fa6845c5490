"""torch.compile of repeated blocks: one graph with and one without gradient, and the same numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from directcm.diffusion.teachers import load
from directcm.distill import students
from directcm.distill.encode import Latents
from directcm.distill.methods import cm
from directcm.runtime import compiled, loop


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


def test_the_first_steps_cost_is_in_the_log(
    tiny: Any, traced: Any, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line: seconds of the first step, of which tracing (all of what is compiled here), of the next ones, and the pace."""
    now, took = [0.0], iter((30.0, 2.0, 3.0, 2.0, 2.0, 50.0))
    real = cm.loss

    def loss(*args: Any) -> Any:
        now[0] += next(took)
        return real(*args)

    monkeypatch.setattr(cm, "loss", loss)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    tiny.train(tmp_path / "student", "cm", steps=6)
    (line,) = re.findall("^train: cm seed 0: the first step .*$", capsys.readouterr().err, re.MULTILINE)
    found = re.fullmatch(
        r"train: cm seed 0: the first step took 30 s, ([\d.]+) s of it to compile, the next 2 s; "
        r"activations kept, (\d+) of \2 rows at a time",
        line,
    )
    assert found, line
    # Nothing is compiled before the first step, nor after it.
    assert 0 < float(found[1]) == pytest.approx(compiled.seconds(), rel=0.01)


def test_without_compiling_the_line_is_of_the_step_alone(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Also where there is no next step; and each process says it once, of the steps that it makes itself."""
    tiny.train(tmp_path / "student", "direct_cm", steps=1, gradient_checkpointing=True, micro_batch=2)
    lines = [line for line in capsys.readouterr().err.splitlines() if "first step" in line]
    (line,) = lines
    assert re.fullmatch(
        r"train: direct_cm seed 0: the first step took [\d.e-]+ s; "
        r"activations computed again in the backward pass, 2 of \d+ rows at a time",
        line,
    )
