"""Random numbers depend on their key and on nothing else."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from directcm.runtime import rng

KEY, FIRST = [2421888970791450872, 15963338962967238854], 0.4129914710447705


def test_a_draw_is_its_key_alone() -> None:
    whole = rng.normal(24, "noise", range(10), (3, 2))
    assert whole.dtype == torch.float32 and whole.shape == (10, 3, 2)
    assert torch.equal(whole[7], rng.normal(24, "noise", [7], (3, 2))[0])
    assert torch.equal(whole[[9, 0, 4]], rng.normal(24, "noise", [9, 0, 4], (3, 2)))
    assert np.array_equal(rng.uniform(1, "u", [3, 5]), rng.uniform(1, "u", range(10))[[3, 5]])
    assert np.array_equal(rng.integers(1, "i", [3, 5], 7), rng.integers(1, "i", range(10), 7)[[3, 5]])


@pytest.mark.parametrize(
    "other", [(25, "noise", 0), (24, "Noise", 0), (24, "noise", 1), (24, "noise", 0, 0), (2, "4noise", 0)]
)
def test_other_keys_give_other_numbers(other: tuple) -> None:
    assert not np.array_equal(rng.generator(24, "noise", 0).random(4), rng.generator(*other).random(4))


def test_index_digits_do_not_run_together() -> None:
    assert rng.generator(0, "a", 1, 23).random() != rng.generator(0, "a", 12, 3).random()


def test_numbers_are_fixed_for_ever() -> None:
    # Artefacts of earlier runs stay comparable only while these do not change.
    key = rng.generator(24, "noise", 0).bit_generator.state["state"]["key"]
    assert [int(k) for k in key] == KEY
    assert rng.generator(24, "noise", 0).random() == FIRST


def test_another_process_draws_the_same() -> None:
    code = "from directcm.runtime import rng; print(rng.generator(24, 'noise', 3).standard_normal().hex())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == rng.generator(24, "noise", 3).standard_normal().hex()


def test_moments() -> None:
    x = rng.normal(3, "moments", range(400), (50,)).double()
    assert abs(float(x.mean())) < 4 / 20000**0.5
    assert abs(float(x.var()) - 1) < 4 * (2 / 20000) ** 0.5
    u = rng.uniform(3, "moments", range(2000))
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 4 / (12 * 2000) ** 0.5
    assert set(rng.integers(3, "moments", range(300), 5).tolist()) == set(range(5))


def test_no_rows() -> None:
    assert rng.normal(0, "x", [], (2, 3)).shape == (0, 2, 3)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 9), start=st.integers(0, 40), count=st.integers(0, 25), cut=st.integers(0, 25))
def test_stream_is_the_same_however_it_is_cut(n: int, start: int, count: int, cut: int) -> None:
    cut = min(cut, count)
    whole = rng.stream(5, "s", start, count, n)
    parts = [rng.stream(5, "s", start, cut, n), rng.stream(5, "s", start + cut, count - cut, n)]
    assert np.array_equal(whole, np.concatenate(parts))


def test_stream_visits_every_item_once_per_epoch() -> None:
    stream = rng.stream(5, "s", 0, 21, 7)
    for epoch in range(3):
        assert sorted(stream[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert not np.array_equal(stream[:7], stream[7:14])
    with pytest.raises(ValueError):
        rng.stream(5, "s", 0, 1, 0)
