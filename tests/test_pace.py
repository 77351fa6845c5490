"""How a training step uses its card, chosen from what a made-up card says."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from directcm.errors import UserError
from directcm.runtime.loop import make_accelerator
from directcm.runtime.pace import Pace, attempt, choose


class Card:
    """A card of `room` rows: computing activations again saves three quarters of it and costs a third of the speed."""

    def __init__(self, room: float, launch: float = 0.0) -> None:
        self.room, self.launch, self.asked = room, launch, []

    def __call__(self, pace: Pace) -> float | None:
        self.asked.append(pace)
        again, rows = pace
        if rows * (0.25 if again else 1.0) > self.room:
            return None
        return (4 / 3 if again else 1.0) + self.launch / rows


@pytest.mark.parametrize(
    ("room", "launch", "want"),
    [
        (16, 0.0, (False, 16)),
        (15, 0.0, (False, 8)),
        (4, 0.0, (False, 4)),
        # Few rows fit as they are, and many small passes cost more than computing again.
        (4, 4.0, (True, 16)),
        (0.5, 0.0, (True, 2)),
    ],
)
def test_the_fastest_that_fits(room: float, launch: float, want: tuple[bool, int]) -> None:
    assert choose(16, "auto", "auto", Card(room, launch)) == want


def test_what_is_given_stays() -> None:
    card = Card(4)
    assert choose(16, True, "auto", card) == (True, 16)
    assert choose(16, "auto", 8, card) == (True, 8)
    assert choose(16, False, "auto", card) == (False, 4)
    tried = len(card.asked)
    assert choose(16, False, 64, card) == (False, 16)
    assert choose(16, True, 2, card) == (True, 2)
    assert len(card.asked) == tried, "nothing is left to measure"


@pytest.mark.parametrize(("again", "micro", "want"), [("auto", "auto", (False, 16)), (True, 3, (True, 3))])
def test_on_a_cpu_nothing_is_measured(again: Any, micro: Any, want: tuple[bool, int]) -> None:
    assert choose(16, again, micro, None) == want


def test_a_card_too_small_for_one_row_is_a_users_line(one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        choose(16, "auto", "auto", Card(0.1))
    assert "fits this card" in one_line(error)


def test_an_attempt_leaves_nothing_but_the_checkpointing(tiny: Any) -> None:
    """A whole pass of the first rows, whose gradients are gone again, and whose weights are as before."""
    from directcm.diffusion.teachers import load
    from directcm.distill import students

    network = students.make_student(load(tiny.teacher), "lora4", 0).teacher.network
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    asked = []

    def loss(step: int, rows: Any) -> torch.Tensor:
        asked.append((step, rows.tolist()))
        # The LoRA's A does not move at first, for B is 0.
        return sum(p.square().sum() for n, p in network.named_parameters() if "lora" in n).expand(len(rows))

    for again in (True, False):
        attempt(network, loss, make_accelerator(), Pace(again, 3))
        assert any(getattr(m, "gradient_checkpointing", False) for m in network.modules()) is again
    assert asked == [(0, [0, 1, 2])] * 2
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in network.named_parameters())

    def too_large(step: int, rows: Any) -> torch.Tensor:
        loss(step, rows).sum().backward()
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        attempt(network, too_large, make_accelerator(), Pace(False, 3))
    assert all(p.grad is None for p in network.parameters())
