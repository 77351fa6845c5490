"""Progressive distillation in several steps: of which stage the student is, and how it gets from one time to the next."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from directcm.config import Config, parse
from directcm.diffusion.processes import VarianceExploding
from directcm.distill.methods import Context, pd
from directcm.errors import UserError
from directcm.evaluation import sampling
from directcm.runtime.times import step_indices

KARRAS = VarianceExploding()
GRID: dict[str, object] = {
    "process": {"kind": "karras"}, "teacher": {"kind": "edm"}, "ode": {"solver": "heun", "N": 8, "w": 1},
    "metrics": ["ode_error", "fd_tiny"], "search": {"steps": [2], "samples": 16},
}  # fmt: skip


def test_each_number_of_steps_has_its_stage() -> None:
    """256 steps of N = 16: four stages of 64, which leave 8, 4, 2 and 1 intervals; three steps take the student of four."""
    assert [pd.ready(k, 256, 16) for k in (16, 8, 4, 3, 2, 1)] == [0, 64, 128, 128, 192, 256]


@given(st.integers(1, 7), st.integers(0, 500))
def test_a_stage_is_over_where_the_average_becomes_the_student(halvings: int, more: int) -> None:
    intervals = 2**halvings
    steps = halvings + more
    context = Context(None, None, 1.0, None, intervals)  # type: ignore[arg-type]
    ends = [step + 1 for step in range(steps) if pd.decay(step, steps, context) == 0]
    assert [pd.ready(intervals >> j, steps, intervals) for j in range(1, halvings)] == ends
    assert pd.ready(1, steps, intervals) == steps and pd.ready(intervals, steps, intervals) == 0


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_its_jumps_follow_the_flow_they_were_learnt_from(steps: int) -> None:
    """A student of N(0, s²) whose every jump is the exact flow: sampled on even times it ends where the flow does, and draws no noise."""
    width = 0.5

    def flow(x: torch.Tensor, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        ratio = torch.sqrt((width**2 + s**2) / (width**2 + t**2))
        return ratio.reshape(-1, 1, 1, 1) * x.double()

    times = KARRAS.grid(16)[:: 16 // steps]
    after = dict(zip(times[:-1].tolist(), times[1:].tolist(), strict=True))

    class Exact:
        process = KARRAS

        class teacher:
            device = torch.device("cpu")

        def __call__(self, x: torch.Tensor, t: torch.Tensor, cond: object) -> torch.Tensor:
            s = torch.full_like(t, after[float(t[0])])
            return pd.aim(KARRAS, x.double(), flow(x, t, s), t, s)

    noise = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    seen: list[torch.Tensor] = []

    def jump(
        process: VarianceExploding, x: torch.Tensor, end: torch.Tensor, t: torch.Tensor, s: torch.Tensor
    ) -> torch.Tensor:
        seen.append(pd.jump(process, x, end, t, s))
        return seen[-1]

    indices = step_indices(16, steps)
    got = sampling.sample_at(Exact(), noise, None, 16, indices, 0, range(3), jump=jump)  # type: ignore[arg-type]
    start = KARRAS.prior(noise)
    T, last, end = (torch.full((3,), float(v), dtype=torch.float64) for v in (times[0], times[-2], times[-1]))
    for number, x in enumerate(seen, 1):
        at = torch.full((3,), float(times[number]), dtype=torch.float64)
        torch.testing.assert_close(x, flow(start, T, at), rtol=1e-6, atol=1e-6)
    assert len(seen) == steps - 1
    # What it returns is the image it aims at; one more jump, down to ε, is the flow's endpoint.
    before = seen[-1] if seen else start
    torch.testing.assert_close(pd.jump(KARRAS, before, got, last, end), flow(start, T, end), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("wrong", [3, 8])
def test_other_numbers_of_steps_are_refused(wrong: int) -> None:
    content = {**GRID, "students": [{"method": ["pd"], "sampling_steps": [1, wrong]}], "search": None}
    with pytest.raises(
        UserError, match=f"halves N = 8, so that its sampling_steps are powers of 2 below it, not {wrong}"
    ):
        parse(Config, content)
    parse(Config, {**content, "students": [{"method": ["pd"], "sampling_steps": [1, 2, 4]}]})


def test_it_has_no_times_to_search_and_edits_no_image() -> None:
    config = parse(Config, {**GRID, "students": [{"method": ["cm", "pd", "direct_cm"]}]})
    assert [run.method for run in config.searched()] == [run.method for run in config.edited()] == ["cm", "direct_cm"]
