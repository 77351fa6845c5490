"""Editing drawn: every edit of every model, any number of models, images and levels, legible, reproducible; artefacts that disagree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from directcm.analysis.figures import figure_editing as figure
from directcm.analysis.figures import style
from directcm.config.specs import METHODS
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, new_artifact, open_artifact, read_csv, write_json
from directcm.runtime.rng import generator
from tests.analysis.tidy_tables import alike, outputs, spy

EDITS = ("inpainting", "colourisation", "super_resolution", "sdedit")


def edits(
    folder: Path,
    name: str,
    *,
    n: int = 6,
    points: int = 7,
    levels: Sequence[float] = (0.53, 2.2),
    side: int = 16,
    **more: Any,
) -> Artifact:
    """An artefact of made-up edits: a model's pictures are a shade of its own."""
    shade = {"Teacher": 0.9, "CM": 0.3, "Direct CM": -0.3}.get(name, 0.0)
    names = [*EDITS, *(f"denoising_{i}" for i in range(1, len(levels) + 1))]
    numbers: list[dict[str, Any]] = []
    tensors = {
        "truth": generator(0, "truth").uniform(-1, 1, (n, 3, side, side)),
        "id": np.arange(n) + more.get("first", 0),
    }
    for i, edit in enumerate(names):
        known = {0: 0.0, 1: 3.3e-16, 2: 4.4e-16}.get(i)
        for suffix, value in (("", shade), (".input", 0.0), (".mean", -0.5)):
            tensors[edit + suffix] = np.full((n, 3, side, side), value)
        level = 80.0 if i < 3 else [2.2, *levels][i - 3]
        both = {"input": {"rmse": 1.25, "se": 0.02}, "mean": {"rmse": 0.75, "se": 0.03}}
        numbers.append(
            {
                "edit": edit,
                "level": level,
                "steps": 4,
                "n": n,
                "known_error": known,
                "rmse": 0.5 + shade / 10,
                "se": 0.01,
                **both,
            }
        )
    tensors["interpolation"] = np.linspace(-1, 1, points)[None, :, None, None, None] * np.ones(
        (n, points, 3, side, side)
    )
    own = {"rmse": None, "se": None} if name == "Teacher" else {"rmse": 0.4, "se": 0.02}
    numbers.append({"edit": "interpolation", "level": 80.0, "steps": 1, "n": n, "known_error": 0.0, **own, **both})
    settings = {"images": n, "run": None if name == "Teacher" else {"method": name}, "seed": more.get("seed", 0)}
    with new_artifact(folder / name.replace(" ", "_"), "edits", settings=settings) as out:
        save_file(
            {k: v if k == "id" else v.astype(np.float32) for k, v in tensors.items()}, str(out / "edits.safetensors")
        )
        write_json(out / "edits.json", numbers)
    return open_artifact(out.path.parent / name.replace(" ", "_"), "edits")


@pytest.mark.slow
def test_every_model_and_every_edit_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {name: edits(tmp_path, name) for name in ("Direct CM", "Teacher", "CM")}
    saved = spy(monkeypatch)
    for name in "ab":
        figure.draw(made, 4, *outputs(tmp_path, name))
    assert alike(tmp_path, "a", "b")
    words = saved[0].words
    assert {
        "Inpainting",
        "Colourisation",
        "Super-resolution",
        "SDEdit, from strokes",
        "Interpolation between two noises",
    } <= set(words)
    assert "Denoising, σ = 0.53" in words and "Denoising, σ = 2.2" in words
    assert words.count("Teacher") == words.count("CM") == words.count("Direct CM") == 3
    assert words.count("known part kept exactly") == 1 and "known part kept to 3e−16" in words
    assert (
        saved[0].get_figwidth() == pytest.approx(style.PAGE, abs=0.01)
        and saved[0].get_figheight() <= figure.TALLEST + 0.1
    )
    # Six panels of six rows of four, and as many pictures of paths in four rows.
    pictures = [image.get_array() for image in saved[0].axes[0].images]
    assert len(pictures) == 6 * 6 * 4 + 4 * 14
    # The rows of the first panel: truth, input, mean fill, Teacher, CM, Direct CM.
    shown = [int(np.round(picture.mean())) for picture in pictures[4:24:4]]
    assert shown == [round((v + 1) * 127.5) for v in (0.0, -0.5, 0.9, 0.3, -0.3)]
    truth = made["CM"].arrays("edits.safetensors")["truth"][0]
    factor = pictures[0].shape[0] // 16
    assert (pictures[0][::factor, ::factor] == ((truth + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)).all()


def test_the_numbers_are_the_artefacts(tmp_path: Path) -> None:
    made = {name: edits(tmp_path, name) for name in ("Teacher", "CM")}
    figure.draw(made, 3, *outputs(tmp_path, "f"))
    rows = read_csv(tmp_path / "f.csv")
    assert list(rows[0]) == figure.COLUMNS and len(rows) == 7 * 4
    found = {(r["edit"], r["row"]): r for r in rows}
    assert found["inpainting", "CM"]["rmse"] == "0.53" and found["inpainting", "input"]["rmse"] == "1.25"
    assert found["interpolation", "Teacher"]["rmse"] == "" and found["interpolation", "CM"]["rmse"] == "0.4"
    assert float(found["colourisation", "CM"]["known_error"]) == 3.3e-16 and found["sdedit", "CM"]["known_error"] == ""
    assert {r["n"] for r in rows} == {"6"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "columns", "more"),
    [
        (("CM",), 4, {"n": 2, "levels": (0.5,)}),
        (("Teacher", *METHODS.values()), 2, {"levels": (0.1, 0.5, 2.0, 8.0), "n": 12, "points": 30}),
        (("Teacher", "CM"), 1, {"n": 1, "points": 40}),
        (("Teacher", "Direct CM"), 4, {"points": 3, "side": 64}),
    ],
)
def test_any_number_of_models_images_and_levels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], columns: int, more: dict[str, Any]
) -> None:
    made = {name: edits(tmp_path, name, **more) for name in names}
    saved = spy(monkeypatch)
    figure.draw(made, columns, *outputs(tmp_path, "f"))
    assert saved[0].get_figwidth() <= style.PAGE + 0.01
    sizes = {round(image.get_extent()[1] - image.get_extent()[0], 6) for image in saved[0].axes[0].images}
    assert saved[0].get_figheight() <= figure.TALLEST + 0.1 or sizes == {figure.SMALLEST}


@pytest.mark.slow
def test_with_every_method_the_figure_fits_a_page_and_has_its_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {name: edits(tmp_path, name, side=4) for name in ("Teacher", *METHODS.values())}
    saved = spy(monkeypatch)
    figure.draw(made, 4, *outputs(tmp_path, "f"))
    # Two lines of panels, the paths beside the last; before it took three lines and fourteen inches.
    assert len(METHODS) > 13 or saved[0].get_figheight() <= figure.TALLEST + 0.1
    words = saved[0].words
    assert words.count("CM") == 2 and words.count("cross-fade") == 1
    # Every number has its standard error: six panels of two rows without a model and all models, and the paths' without the teacher's.
    rows = 6 * (2 + len(made)) + len(METHODS) + 1
    assert sum(word.startswith("± ") for word in words) == rows and words.count("RMSE") == 7


def test_artefacts_that_disagree_are_an_error(tmp_path: Path) -> None:
    a = edits(tmp_path / "a", "Teacher")
    for more, word in (({"seed": 1}, "other settings"), ({"first": 3}, "other images"), ({"n": 5}, "other")):
        b = edits(tmp_path / str(more), "CM", **more)
        with pytest.raises(UserError, match=word):
            figure.draw({"Teacher": a, "CM": b}, 4, *outputs(tmp_path, "f"))
    with pytest.raises(UserError, match="no edits given"):
        figure.draw({}, 4, *outputs(tmp_path, "f"))
