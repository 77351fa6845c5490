"""The last step to the user's own session: what a student's card says is run as it stands, and gives the run's own images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from directcm.analysis.pages.cards import card
from directcm.runtime import rng

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow


def said(text: str, teacher: Path, student: Path) -> list[str]:
    """The card's Python with the two folders in place, up to each call of the pipeline."""
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    code = code.replace("<teacher folder>", str(teacher)).replace("<this folder>", str(student))
    lines = code.splitlines()
    calls = [i for i, line in enumerate(lines) if line.startswith("image = pipe(")]
    assert len(calls) == 2, code
    setup = "\n".join(lines[: calls[0]])
    return [f"{setup}\n{lines[i]}" for i in calls]


def run(
    code: str, caption: str, noise: torch.Tensor, fresh: list[torch.Tensor], patch: pytest.MonkeyPatch
) -> np.ndarray:
    """The pixels that the card's call gives for this caption, from this noise, with this noise between steps."""
    import diffusers.schedulers.scheduling_lcm as lcm

    patch.setattr(lcm, "randn_tensor", lambda *_, **__: fresh.pop(0))
    code = re.sub(r'pipe\("(?:[^"\\]|\\.)*"', "pipe(caption", code).replace(").images", ", latents=noise).images")
    names: dict[str, Any] = {"caption": caption, "noise": noise}
    exec(code, names)
    assert not fresh
    return np.asarray(names["image"]).astype(int)


@pytest.mark.parametrize("method", ["cm", "direct_cm"])
def test_the_cards_calls_give_the_runs_own_images(
    method: str, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = getattr(tiny, method)
    one, several = said(card(student, tiny.teacher, tiny.data, []), tiny.teacher.folder, student.folder)
    noise = tiny.noise.tensors("noise.safetensors")["noise"]
    captions = [row["text"] for row in tiny.noise.csv("prompts.csv")]
    for code, steps in ((one, 1), (several, 4)):
        made = tiny.sample_student(tmp_path / str(steps), student, steps)
        for row in range(3):
            fresh = [
                rng.normal(tiny.seed, "step_noise", [row], tuple(noise.shape[1:]), steps, k) for k in range(1, steps)
            ]
            ours = np.asarray(Image.open(made.file(f"images/{row:05d}.png"))).astype(int)
            theirs = run(code, captions[row], noise[row : row + 1], fresh, monkeypatch)
            # A level of 255 by rounding.
            assert np.abs(ours - theirs).max() <= 1, (method, steps, row)


def test_a_caption_cannot_leave_the_block(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tiny.data.csv("images.csv")
    hostile = '```\n"]); import os #\\ 😀'
    monkeypatch.setattr(type(tiny.data), "csv", lambda self, name: [{**row, "text": hostile} for row in rows])
    one, _ = said(card(tiny.cm, tiny.teacher, tiny.data, []), Path("t"), Path("s"))
    import ast

    call = ast.parse(one).body[-1].value.value.value  # type: ignore[attr-defined]
    assert ast.literal_eval(call.args[0]) == hostile
