"""Emoji drawn from the system's font: against the bitmaps that it holds, and what is said where it is missing or another."""

from __future__ import annotations

import hashlib
import io
import math
import shutil
import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from directcm import datasets
from directcm.cli import preflight
from directcm.config import Config, Data, load_config, parse
from directcm.datasets import emoji
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, open_artifact, read_csv, read_json

ROOT = Path(__file__).resolve().parents[1]
PRESET = ROOT / "workflow/presets/emoji.yaml"
GRINNING, BEAMING, ROBOT, JOINER = 0x1F600, 0x1F601, 0x1F916, 0x200D
# A private character, which no edition of Unicode names.
PRIVATE = 0xFE4E5


def settings(font: Path | str | None = None, resolution: int = 32) -> Data:
    return parse(
        Data, {"kind": "emoji", "resolution": resolution, "emoji": {"font": None if font is None else str(font)}}
    )


@pytest.fixture(scope="module")
def font() -> Path:
    """Debian's font; a test that needs it is skipped where there is none, which CI counts as a failure."""
    found = emoji.place(settings())
    if found is None:
        pytest.skip("no Noto Color Emoji on this machine (Debian: apt-get install fonts-noto-color-emoji)")
    return found


@pytest.fixture(scope="module")
def small(font: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A font of five characters: two of one picture, one that draws nothing, one without a name."""
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTFont

    opened = TTFont(font)
    options = Options(notdef_glyph=True, glyph_names=False)
    options.drop_tables += ["GSUB"]
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=[GRINNING, BEAMING, ROBOT, JOINER, PRIVATE])
    subsetter.subset(opened)
    for table in opened["cmap"].tables:
        if BEAMING in table.cmap:
            table.cmap[BEAMING] = table.cmap[GRINNING]
    path = tmp_path_factory.mktemp("font") / "small.ttf"
    opened.save(path)
    return path


@pytest.fixture(scope="module")
def made(font: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    out = tmp_path_factory.mktemp("emoji") / "data"
    datasets.make(settings(), 24, out)
    return open_artifact(out, "data").verify()


def test_pictures_and_captions(made: Artifact) -> None:
    rows = made.csv("images.csv")
    texts = [row["text"] for row in rows]
    # 1,405 with Unicode 14's names and Noto 2.042.
    assert len(rows) == made.counts["n"] >= 1300 and len(set(texts)) == len(rows)
    points = [ord(unicodedata.lookup(text)) for text in texts]
    assert points == sorted(points) and {*range(GRINNING, GRINNING + 80)} < {*points}
    assert texts[points.index(GRINNING)] == "grinning face" and texts[points.index(ROBOT)] == "robot face"
    assert not any(row["label"] for row in rows) and made.json("data.json")["labels"] == []
    pixels = [np.asarray(Image.open(made.file(row["file_name"]))) for row in rows]
    assert all(p.shape == (32, 32, 3) and p.dtype == np.uint8 for p in pixels)
    assert len({p.tobytes() for p in pixels}) == len(rows) and all(p.min() < 255 for p in pixels)
    # Colour: of most pictures the channels differ.
    assert np.mean([np.ptp(p.astype(int), axis=2).max() > 60 for p in pixels]) > 0.8


def test_a_picture_is_the_fonts_bitmap_on_white(made: Artifact, font: Path) -> None:
    from fontTools.ttLib import TTFont

    opened = TTFont(font)
    names, bitmaps = opened.getBestCmap(), opened["CBDT"].strikeData[0]
    by_text = {row["text"]: row["file_name"] for row in made.csv("images.csv")}
    for point in (GRINNING, ROBOT, 0x2764, 0x1F3C8, 0x1F4A7):
        bitmap = Image.open(io.BytesIO(bitmaps[names[point]].imageData)).convert("RGBA")
        assert bitmap.size == (136, 128)
        square = Image.new("RGBA", (136, 136), (255, 255, 255, 255))
        square.alpha_composite(bitmap, (0, 4))
        # The mean over each pixel's area, by hand: a pixel of 32 is 4.25 of 136, so that each is cut into four.
        fine = np.asarray(square.convert("RGB"), dtype=float).repeat(4, 0).repeat(4, 1)
        wanted = fine.reshape(32, 17, 32, 17, 3).mean((1, 3))
        found = np.asarray(Image.open(made.file(by_text[unicodedata.name(chr(point)).lower()])), dtype=float)
        # FreeType's colours are multiplied by their alpha in 8 bits, and Pillow divides by it again: at most 1 off, then rounded.
        assert np.abs(found - wanted).max() < 1.5 and np.abs(found - wanted).mean() < 0.3


@pytest.mark.parametrize(("width", "side"), [(136, 8), (136, 16), (136, 32), (136, 24), (128, 64), (40, 40)])
def test_the_mean_over_areas(width: int, side: int) -> None:
    """Pillow's, by way of a common multiple; its rounding of halves is not ours."""
    image = Image.fromarray(np.random.default_rng(width + side).integers(0, 256, (width, width, 3)).astype(np.uint8))
    fine = math.lcm(width, side)
    wanted = image.resize((fine, fine), Image.Resampling.NEAREST).reduce(fine // side)
    difference = np.abs(np.asarray(emoji.area_mean(image, side), int) - np.asarray(wanted, int))
    assert difference.max() <= (fine > width) and difference.mean() < 0.01
    checked = emoji.area_mean(Image.fromarray(np.array([[[0] * 3, [1] * 3], [[2] * 3, [3] * 3]], np.uint8)), 1)
    assert checked.getpixel((0, 0)) == (2, 2, 2)


def test_the_manifest_says_font_and_names(made: Artifact, font: Path) -> None:
    digest = hashlib.sha256(font.read_bytes()).hexdigest()
    assert made.counts["font_sha256"] == digest and made.counts["unicode"] == unicodedata.unidata_version
    assert read_csv(made.folder / "sources.csv") == [
        {"name": "font", "size": str(font.stat().st_size), "sha256": digest}
    ]
    assert read_json(made.folder / "location.json") == {"data": str(font)}
    assert made.settings == {"kind": "emoji", "path": None, "resolution": 32, "held_out": 0.2, "seed": 24}
    assert datasets.changes(made) == []


@pytest.mark.slow
def test_the_same_bytes_again(made: Artifact, tmp_path: Path) -> None:
    emoji.drawn.cache_clear()
    datasets.make(settings(), 24, tmp_path / "again")
    assert open_artifact(tmp_path / "again", "data").fingerprint == made.fingerprint


def test_what_is_left_out_is_counted(small: Path, tmp_path: Path, capsys: Any) -> None:
    datasets.make(settings(small), 0, tmp_path / "data")
    found = open_artifact(tmp_path / "data", "data")
    assert [row["text"] for row in found.csv("images.csv")] == ["grinning face", "robot face"]
    counts = {key: found.counts[key] for key in ("n", "without_name", "empty", "same")}
    assert counts == {"n": 2, "without_name": 1, "empty": 1, "same": 1}
    said = capsys.readouterr().err.splitlines()[0]
    assert f"{small}: 2 emoji; left out are 1 characters without a name in Unicode" in said
    assert "1 that draw nothing, and 1 of the same pixels as another" in said


@pytest.mark.parametrize("resolution", [8, 64, 128])
def test_resolutions(small: Path, resolution: int) -> None:
    _, items = emoji.items(settings(small, resolution))
    assert [item.image.size for item in items] == [(resolution, resolution)] * 2


def test_another_font_is_noticed(small: Path, font: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "mine.ttf"
    shutil.copy(small, mine)
    datasets.make(settings(mine), 0, tmp_path / "data")
    data, before = open_artifact(tmp_path / "data", "data"), datasets.content(settings(mine), tmp_path / "data")
    assert datasets.changes(data) == [] and len(before) == 64
    # The same bytes elsewhere are the same font.
    shutil.copy(small, tmp_path / "moved.ttf")
    assert datasets.content(settings(tmp_path / "moved.ttf"), tmp_path / "data") == before
    mine.write_bytes(small.read_bytes() + b"\0")
    assert datasets.content(settings(mine), tmp_path / "data") != before
    assert datasets.changes(data) == ["font has changed"]
    # Gone: what is recorded counts, and nothing can be seen.
    mine.unlink()
    assert datasets.content(settings(mine), tmp_path / "data") == before and datasets.changes(data) is None
    assert datasets.content(settings(mine), tmp_path / "no such") == ""


def refused(given: Data, one_line: Any) -> str:
    # The preset asks for more images than some of these have; what counts here is the font.
    config = load_config(ROOT / "config.yaml", PRESET).model_copy(update={"data": given})
    with pytest.raises(UserError) as error:
        preflight.check(config)
    return one_line(error)


def test_a_missing_font_is_said_before_the_first_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_line: Any
) -> None:
    monkeypatch.setattr(emoji, "PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    said = refused(settings(), one_line)
    assert said.startswith("data.kind emoji: this machine has no font Noto Color Emoji; install it")
    assert "apt-get install fonts-noto-color-emoji" in said and said.endswith("data.emoji.font")
    assert refused(settings(tmp_path / "no.ttf"), one_line).startswith(
        f"data.emoji.font: {tmp_path}/no.ttf is not a file"
    )
    # Where the data are made already nobody asks for it.
    (tmp_path / "results/data").mkdir(parents=True)
    (tmp_path / "results/data/data.json").write_text('{"n_train": 1124}')
    preflight.check(load_config(ROOT / "config.yaml", PRESET), tmp_path / "results")
    with pytest.raises(UserError, match="this machine has no font"):
        datasets.make(settings(), 0, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("family", ["Noto Color Emoji", "Noto Color Emoji,Noto Color Emoji Regular", "DejaVu Sans"])
def test_fontconfig_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    """It answers with another family where it has none of this name."""
    file = tmp_path / "some.ttf"
    file.touch()
    script = tmp_path / "fc-match"
    script.write_text(f"#!/bin/sh\n[ \"$3\" = 'Noto Color Emoji' ] && printf '%s\\n%s' '{family}' '{file}'\n")
    script.chmod(0o755)
    monkeypatch.setattr(emoji, "PLACES", ())
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert emoji.place(settings()) == (None if family == "DejaVu Sans" else file)


def test_fontconfig_knows_the_font(font: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("fc-match") is None:
        pytest.skip("no fontconfig on this machine (Debian: apt-get install fontconfig)")
    monkeypatch.setattr(emoji, "PLACES", ())
    found = emoji.place(settings())
    assert found is not None and found.resolve() == font.resolve()


def test_a_font_without_bitmaps_is_refused(small: Path, tmp_path: Path, one_line: Any) -> None:
    from fontTools.fontBuilder import FontBuilder
    from fontTools.ttLib.tables._g_l_y_f import Glyph

    builder = FontBuilder(1024, isTTF=True)
    builder.setupGlyphOrder([".notdef", "grin"])
    builder.setupCharacterMap({GRINNING: "grin"})
    builder.setupGlyf({".notdef": Glyph(), "grin": Glyph()})
    builder.setupHorizontalMetrics({".notdef": (600, 0), "grin": (600, 0)})
    builder.setupHorizontalHeader()
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "plain.ttf")
    said = refused(settings(tmp_path / "plain.ttf"), one_line)
    assert said.startswith(
        f"{tmp_path}/plain.ttf: has no bitmaps in colour (tables CBDT and CBLC); data.kind emoji needs"
    )
    # As the builds with vectors have it.
    builder.setupCOLR({"grin": [("grin", 0)]})
    builder.setupCPAL([[(1, 0, 0, 1)]])
    builder.save(tmp_path / "vectors.ttf")
    assert ", its drawings are vectors (COLR); data.kind emoji needs" in refused(
        settings(tmp_path / "vectors.ttf"), one_line
    )


def test_what_is_no_font_is_refused(tmp_path: Path, small: Path, one_line: Any) -> None:
    whole, damaged = small.read_bytes(), tmp_path / "damaged.ttf"
    for content in (b"", b"words", whole[:400], whole[:-1000]):
        damaged.write_bytes(content)
        assert f"{damaged}: not a font that can be read (" in refused(settings(damaged), one_line)
    # Damage within a bitmap is found when it is drawn.
    start = whole.index(b"IDAT") + 4
    damaged.write_bytes(whole[:start] + bytes(200) + whole[start + 200 :])
    with pytest.raises(UserError) as error:
        datasets.make(settings(damaged), 0, tmp_path / "out")
    assert one_line(error).startswith(f"{damaged}: its pictures cannot be drawn (") and not (tmp_path / "out").exists()


def test_a_large_picture_is_not_to_be_had() -> None:
    with pytest.raises(UserError, match="emoji come at 8, 16, 24 … 128 pixels"):
        parse(Config, {"data": {"kind": "emoji", "resolution": 136}, "metrics": ["ode_error"]})


@pytest.mark.slow
def test_the_preset_from_the_pictures_to_both_students(made: Artifact, tmp_path: Path) -> None:
    """Data, a teacher of few steps, latents, targets, students of few steps, samples and their nearness: at the preset's sizes."""
    from directcm.config import Run
    from directcm.diffusion.teachers import micro_sdxl
    from directcm.distill import encode, noise, targets, training
    from directcm.evaluation import sampling
    from directcm.evaluation.metrics.evaluate import Comparison, evaluate
    from directcm.runtime.artifacts import open_collection

    config = load_config(ROOT / "config.yaml", PRESET)
    micro, ode = config.teacher.micro_sdxl, config.ode
    few = micro.model_copy(
        update={part: getattr(micro, part).model_copy(update={"steps": 3, "batch_size": 8}) for part in ("vae", "unet")}
    )
    # No caption is cut, of those trained on as of the others.
    rows = made.csv("images.csv")
    tokenizer = micro_sdxl.make_tokenizer([row["text"] for row in rows if row["split"] == "train"], micro.text)
    assert max(len(tokenizer(row["text"])["input_ids"]) for row in rows) <= micro.text.length

    some = list(emoji.items(settings())[1])[::12]
    t = SimpleNamespace(**{name: tmp_path / name for name in ("data", "teacher", "latents", "noise", "targets")})
    datasets.write(len(some), some, config.data, 24, t.data)
    made = open_artifact(t.data, "data")
    micro_sdxl.make(few, config.process, made, 24, tmp_path / "scratch-teacher", t.teacher)
    teacher = open_artifact(t.teacher, "teacher")
    encode.make(config.encode, teacher, made, 24, "cpu", "no", tmp_path / "scratch-latents", t.latents)
    latents = open_artifact(t.latents, "latents")
    channels, side = config.latent()
    assert tuple(latents.counts["shape"]) == (channels, side, side)
    noise.make(8, "evaluation", made, latents, 24, t.noise)
    start = open_artifact(t.noise, "noise")
    short = config.targets.model_copy(update={"shard": 8, "block": 8, "batch_size": 4})
    targets.make(short, ode, 0, teacher, latents, 24, "cpu", "no", tmp_path / "scratch-targets", t.targets)
    solved = open_artifact(t.targets, "targets")
    evaluated = sampling.Evaluated(
        config.evaluation.model_copy(update={"samples": 8, "block": 8, "batch_size": 4}),
        teacher,
        latents,
        start,
        24,
        "cpu",
    )
    for method in ("cm", "direct_cm"):
        first = next(run for run in config.runs() if run.method == method)
        run = Run(**{**first.axes(), "steps": 2, "batch_size": 4, "pool": 8})
        needs = [solved] if method == "direct_cm" else []
        out = tmp_path / method
        training.make(run, config.train, [], teacher, latents, needs, 24, tmp_path / f"scratch-{method}", None, out)
        sampling.sample_students(
            evaluated,
            ode,
            open_artifact(out, "student"),
            [(2, 1)],
            tmp_path / f"scratch-s{method}",
            tmp_path / f"s{method}",
        )
        (samples,) = open_collection(tmp_path / f"s{method}", "samples").values()
        compared = Comparison(
            metrics=[name for name in config.metrics if name.startswith("near")], row="CM", run=run,
            statistics=config.statistics, seed=24, data=made, noise=start, data_features={},
        )  # fmt: skip
        found = evaluate(compared, [samples], {}, tmp_path / f"m{method}", steps=1)
        nearer, distance = (one["value"] for one in found["metrics"])
        # A VAE of three steps draws nothing that is near to an emoji.
        assert nearer < 0.5 and distance > 1
