"""Published data sets in the layouts in which they come: stand-ins through the real code, as folders and as archives; the presets on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from directcm import datasets
from directcm.cli import plan, preflight
from directcm.config import Config, Data, load_config, parse
from directcm.config.specs import LAYOUTS, TEACHERS
from directcm.datasets import evenly
from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact, open_artifact, read_csv
from tests import layouts
from tests.layouts import pack

ROOT = Path(__file__).parents[1]
PRESETS = {"imagenet64": "imagenet64", "lsun_bedroom": "images", "lsun_cat": "images", "celeba64": "celeba"}
MAKE: dict[str, Callable[[Path], Any]] = {
    "imagenet64": layouts.imagenet64,
    "images": layouts.lsun,
    "celeba": layouts.celeba,
    "classes": layouts.classes,
}


def made(out: Path, **settings: Any) -> Artifact:
    datasets.make(parse(Data, settings), 24, out)
    return open_artifact(out, "data").verify()


def pixels(data: Artifact) -> np.ndarray:
    """All images of a data artefact, (n, side, side, 3)."""
    return np.stack([np.asarray(Image.open(data.file(row["file_name"]))) for row in data.csv("images.csv")])


def near(found: np.ndarray, expected: list[np.ndarray]) -> bool:
    """Within a step of 8 bits: Pillow cuts and resizes in one, which rounds otherwise here and there."""
    return found.shape == np.stack(expected).shape and int(np.abs(found.astype(int) - np.stack(expected)).max()) <= 1


def square(image: np.ndarray, side: int, crop: int | None = None) -> np.ndarray:
    """The middle square, then Lanczos: written out here."""
    height, width = image.shape[:2]
    cut = crop or min(height, width)
    top, left = (height - cut) // 2, (width - cut) // 2
    middle = Image.fromarray(image[top : top + cut, left : left + cut])
    return np.asarray(middle.resize((side, side), Image.Resampling.LANCZOS))


def refused(one_line: Any, out: Path, **settings: Any) -> str:
    with pytest.raises(UserError) as error:
        made(out, **settings)
    assert not out.exists()
    return one_line(error)


@pytest.mark.parametrize("layout", MAKE)
def test_a_folder_and_an_archive_are_the_same(layout: str, tmp_path: Path) -> None:
    """At the top, or in one folder there, of a tar and a zip; what is read is known, and nothing else."""
    MAKE[layout](tmp_path / "in")
    side = 64 if layout == "imagenet64" else 32
    folder = made(tmp_path / "folder", kind="folder", layout=layout, path=str(tmp_path / "in"), resolution=side)
    rows = folder.csv("images.csv")
    for name, top in (("a.tar.gz", ""), ("b.zip", "inside/")):
        digest = pack(tmp_path / "in", tmp_path / name, top)
        archive = made(
            tmp_path / name.replace(".", "_"), kind="archive", layout=layout, path=str(tmp_path / name), sha256=digest, resolution=side
        )  # fmt: skip
        assert archive.csv("images.csv") == rows and np.array_equal(pixels(archive), pixels(folder))
    sources = {row["name"] for row in read_csv(folder.folder / "sources.csv")}
    there = {path.relative_to(tmp_path / "in").as_posix() for path in (tmp_path / "in").rglob("*") if path.is_file()}
    assert sources == there and datasets.changes(folder) == []
    image = next(path for path in sorted((tmp_path / "in").rglob("*")) if path.is_file())
    image.write_bytes(image.read_bytes() + b"\n")
    assert datasets.changes(folder) == [f"{image.relative_to(tmp_path / 'in').as_posix()} has changed"]


def test_imagenet64_byte_for_byte(tmp_path: Path) -> None:
    images, labels = layouts.imagenet64(tmp_path / "in")
    data = made(tmp_path / "out", kind="folder", layout="imagenet64", path=str(tmp_path / "in"), resolution=64)
    rows = data.csv("images.csv")
    # Batch 10 comes after batch 9, not after batch 1.
    assert np.array_equal(pixels(data), images) and [row["label"] for row in rows] == [str(n) for n in labels]
    assert [row["split"] for row in rows] == ["train"] * 33 + ["held_out"] * 3
    # Two classes are called crane: a caption has one label.
    said = {
        "1": "a kit fox",
        "1000": "a toilet tissue",
        "517": "a crane (517)",
        "134": "a crane (134)",
        "2": "an English setter",
    }
    assert {row["label"]: row["text"] for row in rows} == {
        number: f"a photo of {words}" for number, words in said.items()
    }
    (tmp_path / "in" / "map_clsloc.txt").unlink()
    small = made(tmp_path / "small", kind="folder", layout="imagenet64", path=str(tmp_path / "in"), resolution=32)
    assert small.csv("images.csv")[0]["text"] == "a photo of a thing of class 1"
    assert np.array_equal(pixels(small)[5], square(images[5], 32))


@pytest.mark.parametrize(
    ("name", "arrays", "words"),
    [
        ("val_data.npz", None, ["val_data.npz: missing", "is a folder of train_data_batch_1.npz"]),
        ("train_data_batch_1.npz", None, ["train_data_batch_1.npz: missing"]),
        ("train_data_batch_3.npz", {"data": np.zeros((3, 12288), np.uint8)}, ["batch_3.npz", "no array 'labels'"]),
        ("val_data.npz", {"data": np.zeros((3, 3072), np.uint8), "labels": np.ones(3, np.int64)}, ["val_data.npz", "uint8 (3, 3072)", "(3, 12288)"]),
        ("val_data.npz", {"data": np.zeros((3, 12288), np.uint8), "labels": np.arange(3)}, ["labels are int64 (3,)", "from 1 to 1000"]),
        ("val_data.npz", {"data": np.zeros((3, 12288), np.uint8), "labels": np.array([1, None, 2])}, ["val_data.npz: its labels cannot be read"]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_imagenet64(
    name: str, arrays: dict[str, np.ndarray] | None, words: list[str], tmp_path: Path, one_line: Any
) -> None:
    layouts.imagenet64(tmp_path / "in")
    (tmp_path / "in" / name).unlink()
    if arrays is not None:
        np.savez(tmp_path / "in" / name, **arrays)
    said = refused(
        one_line, tmp_path / "out", kind="folder", layout="imagenet64", path=str(tmp_path / "in"), resolution=64
    )
    assert said.startswith(str(tmp_path / "in")) and all(word in said for word in words), said


@pytest.mark.parametrize(
    ("kind", "ending", "flat"), [("WEBP", ".webp", False), ("WEBP", ".jpg", True), ("PNG", ".png", True)]
)
def test_lsun_as_it_is_exported(kind: str, ending: str, flat: bool, tmp_path: Path) -> None:
    """In folders of a key's letters or flat; `data.py save` writes the database's WebP under .jpg."""
    images = layouts.lsun(tmp_path / "in", kind=kind, ending=ending, flat=flat)
    (tmp_path / "in" / "._hidden.png").write_bytes(b"of another system")
    (tmp_path / "in" / "readme.txt").write_text("no image")
    lsun = {"kind": "folder", "layout": "images", "path": str(tmp_path / "in"), "resolution": 256}
    data = made(tmp_path / "out", **lsun, caption="a photo of a bedroom")
    rows = data.csv("images.csv")
    assert near(pixels(data), [square(image, 256) for image in images.values()])
    assert {(row["text"], row["label"]) for row in rows} == {("a photo of a bedroom", "")}
    assert data.json("data.json")["labels"] == [] and [
        row["name"] for row in read_csv(data.folder / "sources.csv")
    ] == list(images)
    # Evenly spaced, with the first and the last; what is not taken is not read.
    some = made(tmp_path / "some", **lsun, most=3)
    assert np.array_equal(pixels(some), pixels(data)[[0, 2, 4]]) and some.counts["n"] == 3
    assert [row["name"] for row in read_csv(some.folder / "sources.csv")] == [list(images)[i] for i in (0, 2, 4)]


def test_what_is_wrong_with_a_folder_of_images(tmp_path: Path, one_line: Any) -> None:
    folder = {"kind": "folder", "layout": "images", "path": str(tmp_path / "in"), "resolution": 256}
    assert "in is not a folder; name the folder with images" in refused(one_line, tmp_path / "out", **folder)
    (tmp_path / "in" / "bedroom_train_lmdb").mkdir(parents=True)
    assert refused(one_line, tmp_path / "out", **folder) == f"{tmp_path / 'in'}: holds no images"
    (tmp_path / "in" / "bedroom_train_lmdb" / "data.mdb").write_bytes(b"\0")
    assert "bedroom_train_lmdb/data.mdb is an lmdb database: export its images" in refused(
        one_line, tmp_path / "out", **folder
    )
    images = list(layouts.lsun(tmp_path / "in"))
    (tmp_path / "in" / images[2]).write_bytes(b"")
    said = refused(one_line, tmp_path / "out", **folder)
    assert f"1 file(s), '{images[2]}': not a readable image (an empty file)" in said
    small = refused(one_line, tmp_path / "out", **{**folder, "crop": 264})
    assert f"4 file(s), '{images[0]}'" in small and "smaller than data.crop = 264" in small
    # Of an archive the archive is named, not where it is unpacked.
    digest = pack(tmp_path / "in", tmp_path / "a.zip")
    said = refused(
        one_line, tmp_path / "out", kind="archive", layout="images", path=str(tmp_path / "a.zip"), sha256=digest, resolution=256
    )  # fmt: skip
    assert said.startswith(f"{tmp_path / 'a.zip'}: 1 file(s)") and "directcm-" not in said


def test_celeba_is_cut_as_usual_and_parted_by_its_authors(tmp_path: Path) -> None:
    """178×218: the middle 140×140 begin at column 19 and row 39."""
    images = layouts.celeba(tmp_path / "in")
    celeba = {"kind": "folder", "layout": "celeba", "path": str(tmp_path / "in"), "resolution": 64}
    data = made(tmp_path / "out", **celeba, crop=140, caption="a face")
    box = [
        Image.fromarray(image).crop((19, 39, 159, 179)).resize((64, 64), Image.Resampling.LANCZOS) for image in images
    ]
    assert np.array_equal(pixels(data), np.stack([np.asarray(image) for image in box]))
    rows = data.csv("images.csv")
    assert [row["split"] for row in rows] == [{"0": "train"}.get(part, "held_out") for part in "0010210"]
    assert {row["text"] for row in rows} == {"a face"} and {row["label"] for row in rows} == {""}
    whole = made(tmp_path / "whole", **celeba)
    assert near(pixels(whole), [square(image, 64) for image in images])
    assert {row["text"] for row in whole.csv("images.csv")} == {""}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (None, ["list_eval_partition.txt: missing", "CelebA is a folder of"]),
        ("000001.jpg 0\n000002.jpg 3\n", ["list_eval_partition.txt, line 2", "'000002.jpg 3'", "0, 1 or 2"]),
        ("000001.jpg 0\n../000002.jpg 1\n", ["line 2", "'../000002.jpg 1'"]),
        ("000001.jpg 0\n000002.jpg 0\n", ["has no image of partition 1 or 2"]),
        ("000001.jpg 0\n000009.jpg 1\n", ["1 file(s), 'img_align_celeba/000009.jpg': not there"]),
    ],
)
def test_what_is_wrong_with_celeba(table: str | None, words: list[str], tmp_path: Path, one_line: Any) -> None:
    layouts.celeba(tmp_path / "in")
    path = tmp_path / "in" / "list_eval_partition.txt"
    path.unlink() if table is None else path.write_text(table)
    said = refused(one_line, tmp_path / "out", kind="folder", layout="celeba", path=str(tmp_path / "in"), resolution=64)
    assert all(word in said for word in words), said


def test_a_folder_for_each_class(tmp_path: Path, one_line: Any) -> None:
    images = layouts.classes(tmp_path / "in")
    folder = {"kind": "folder", "layout": "classes", "path": str(tmp_path / "in"), "resolution": 40}
    data = made(tmp_path / "out", **folder)
    rows = data.csv("images.csv")
    assert [row["label"] for row in rows] == ["n01440764"] * 2 + ["owl_eyed"] * 2 + ["zebra"]
    assert [row["text"] for row in rows][1:] == [
        "a photo of a n01440764",
        *["a photo of an owl eyed"] * 2,
        "a photo of a zebra",
    ]
    assert data.json("data.json")["labels"] == ["n01440764", "owl_eyed", "zebra"]
    assert near(pixels(data)[1:], [square(image, 40) for image in images.values()][1:])
    # Those of a class that is told by a teacher on pixels: a caption has one label.
    datasets.check_classes([(row["file_name"], row["text"], row["label"]) for row in rows], "data")
    (tmp_path / "in" / "stray.png").write_bytes(layouts.encoded(images["zebra/e.png"], "PNG"))
    assert "'stray.png' lies in no folder of a class" in refused(one_line, tmp_path / "again", **folder)


def test_evenly() -> None:
    assert evenly(range(10), None) == range(10) and evenly("abc", 3) == "abc"
    assert evenly(range(9), 3) == [0, 4, 8] and evenly(range(10), 2) == [0, 9]
    for n in range(2, 30):
        for most in range(2, n):
            some = evenly(range(n), most)
            gaps = np.diff(some)
            assert len(some) == most and (some[0], some[-1]) == (0, n - 1) and gaps.max() - gaps.min() <= 1


def test_as_many_of_a_table(tmp_path: Path, digit_folder: Any) -> None:
    """`most` holds for every layout; of CIFAR-10 and of ImageNet both parts of the split are left."""
    folder = digit_folder(tmp_path / "in", 7)
    every = made(tmp_path / "all", kind="folder", path=str(folder), resolution=8)
    some = made(tmp_path / "some", kind="folder", path=str(folder), resolution=8, most=3)
    assert np.array_equal(pixels(some), pixels(every)[[0, 3, 6]])
    layouts.imagenet64(tmp_path / "imagenet")
    few = made(
        tmp_path / "few", kind="folder", layout="imagenet64", path=str(tmp_path / "imagenet"), resolution=64, most=5
    )
    assert [row["split"] for row in few.csv("images.csv")] == ["train"] * 4 + ["held_out"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layout": "celeba", "crop": 32, "resolution": 64}, "crop = 32 is less than resolution = 64"),
        (
            {"layout": "imagenet64", "crop": 64, "resolution": 64},
            "crop: layout imagenet64 has square images of one size",
        ),
        (
            {"layout": "imagenet64", "resolution": 72},
            "resolution is 72, but data.layout imagenet64 has images of 64 pixels",
        ),
        ({"layout": "classes", "caption": "x"}, "caption: layout classes has captions of its own"),
        ({"kind": "digits", "most": 10}, "most: kind digits is small"),
        ({"kind": "digits", "crop": 64}, "crop: kind digits has square images"),
        ({"layout": "lmdb"}, "layout: is"),
        ({"most": 1}, "most: is 1"),
    ],
)
def test_what_the_keys_ask_of_each_other(settings: dict[str, Any], words: str, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        parse(Data, {"kind": "folder", "path": "x", **settings})
    assert words in one_line(error)


# ----------------------------------------------------------------- what the teacher is told


def test_images_without_labels_and_a_teacher_that_is_told_classes(one_line: Any) -> None:
    """Said before the first job, whether the images are there or not; and without classes guidance has nothing to guide by."""
    pixel = {"process": {"kind": "karras"}, "ode": {"N": 18, "w": 1}, "students": [{}]}
    lsun = {"data": {"kind": "folder", "layout": "images", "path": "x"}, **pixel}
    for kind, remedy in (("edm", "conditional: false"), ("dit", "conditional: false"), ("mixture", "another kind")):
        config = parse(Config, {**lsun, "teacher": {"kind": kind}})
        with pytest.raises(UserError) as error:
            preflight.check(config)
        assert one_line(error) == (
            f"data.layout images has no labels, and teacher.kind {kind} is told the class of each image; set {remedy} in the block teacher"
        )
    for kind in ("edm", "dit"):
        block = {"kind": kind, kind: {"conditional": False}}
        assert not parse(Config, {**lsun, "teacher": block}).teacher.told_classes
        with pytest.raises(UserError) as error:
            parse(Config, {**lsun, "teacher": block, "ode": {"N": 18, "w": 3}})
        said = f"teacher.{kind}.conditional is false: there is nothing to guide by, so w is 1, not 3"
        assert said in one_line(error)
    # A teacher on latents is told captions.
    assert not parse(Config, {"data": lsun["data"]}).teacher.told_classes
    assert parse(Config, {**pixel, "teacher": {"kind": "edm"}}).teacher.told_classes


@pytest.mark.parametrize("name", PRESETS)
def test_tables_read_a_preset_without_how_its_teacher_is_trained(name: str) -> None:
    """As workflow/rules/scopes.smk hands it to them."""
    whole = load_config(ROOT / "workflow/presets" / f"{name}.yaml")
    learnt = {kind for kind, spec in TEACHERS.items() if not spec.pinned}
    trimmed = whole.model_dump(mode="json", exclude={"teacher": learnt, "encode": True, "extractors": True})
    assert parse(Config, trimmed).runs() == whole.runs()


# ----------------------------------------------------------------- the presets


@pytest.mark.parametrize(("name", "layout"), PRESETS.items())
def test_a_preset_reads_its_data_set_as_it_comes(
    name: str, layout: str, tmp_path: Path, one_line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the preset's own block `data`, all but the place; what is missing is said before the first job."""
    monkeypatch.setenv("DIRECTCM_WEIGHTS", str(tmp_path / "weights"))
    preset = load_config(ROOT / "workflow/presets" / f"{name}.yaml")
    block = preset.data.model_dump()
    assert (preset.data.kind, preset.data.layout) == ("folder", layout)
    with pytest.raises(UserError) as error:
        preflight.check(
            parse(Config, {**preset.model_dump(mode="json"), "data": {**block, "path": str(tmp_path / "none")}})
        )
    assert "none is not a folder" in one_line(error)
    MAKE[layout](tmp_path / "in")
    data = made(tmp_path / "out", **{**block, "path": str(tmp_path / "in")})
    side = preset.data.resolution
    assert pixels(data).shape[1:] == (side, side, 3) and data.json("data.json")["n_held_out"] >= 1
    assert bool(data.json("data.json")["labels"]) == preset.teacher.told_classes
    with pytest.raises(UserError) as error:
        preflight.check(
            parse(Config, {**preset.model_dump(mode="json"), "data": {**block, "path": str(tmp_path / "in")}})
        )
    assert "missing weights" in one_line(error)


def test_too_few_images_are_said_before_the_first_job(tmp_path: Path, one_line: Any) -> None:
    preset = load_config(ROOT / "workflow/presets/lsun_cat.yaml")
    for count, words in (
        (1, "holds 1 image, at least 2 are needed"),
        (3, "holds 3 images; precision_inception, recall_inception need at least 4"),
    ):
        folder = tmp_path / str(count)
        layouts.lsun(folder, count)
        block = {**preset.data.model_dump(), "path": str(folder)}
        with pytest.raises(UserError) as error:
            preflight.check(parse(Config, {**preset.model_dump(mode="json"), "data": block}))
        assert words in one_line(error)


@pytest.mark.parametrize("name", PRESETS)
def test_an_archive_without_its_sha256_is_refused_in_a_line(name: str, tmp_path: Path, one_line: Any) -> None:
    overlay = tmp_path / "mine.yaml"
    for sha256 in ("", "  sha256: null\n"):
        overlay.write_text(f"data:\n  kind: archive\n  url: https://example.org/{name}.tar\n{sha256}")
        with pytest.raises(UserError) as error:
            load_config(ROOT / "config.yaml", ROOT / "workflow/presets" / f"{name}.yaml", overlay)
        assert (
            "data: sha256 is missing: data.kind archive needs that of the archive, as sha256sum prints it"
            in one_line(error)
        )
    overlay.write_text(
        f"data: {{kind: archive, path: null, url: 'https://example.org/{name}.tar', sha256: {'a' * 64}}}\n"
    )
    assert load_config(ROOT / "config.yaml", ROOT / "workflow/presets" / f"{name}.yaml", overlay).data.kind == "archive"


def published(name: str) -> Config:
    return load_config(ROOT / "workflow/presets" / f"{name}.yaml")


def test_imagenet64_has_the_published_numbers() -> None:
    """openai/consistency_models, scripts/launch.sh; NVlabs/edm, README and train.py."""
    c = published("imagenet64")
    e, unet = c.teacher.edm, c.teacher.edm.unet
    assert unet.channels == tuple(192 * m for m in (1, 2, 3, 4)) and unet.layers_per_block == 3 and unet.head_dim == 64
    assert {64 // 2**level for level in unet.attention or ()} == {32, 16, 8}
    assert (e.batch_size, e.lr, e.dropout, e.label_dropout, e.conditional) == (4096, 1e-4, 0.1, 0, True)
    # 2,500 M images, a warm-up of 10 M, an average with a half-life of 50 M; and launch.sh's own decay.
    assert e.steps == round(2500e6 / 4096) and e.warm_up == int(10e6 / 4096)
    assert e.ema == pytest.approx(0.5 ** (4096 / 50e6), abs=1e-8) == pytest.approx(0.9999432189950708, abs=1e-8)
    runs = {(r.method, r.loss, r.N + 1, r.solver, r.batch_size, r.lr, r.steps) for r in c.runs()}
    assert {("cd", "lpips", 40, "heun", 2048, 8e-6, 600_000), ("cd", "mse", 40, "heun", 2048, 8e-6, 600_000)} <= runs
    assert ("ct", "lpips", 40, "heun", 2048, 1e-4, 800_000) in runs
    assert c.hparams("cd") == {"mu": 0.95} and c.hparams("ct") == {"s0": 2, "s1": 200, "mu0": 0.95}
    assert (c.train.ema, c.train.weight_decay, c.train.precision) == (0.99994322, 0, "fp16") and c.ode.w == 1


@pytest.mark.parametrize("name", ["lsun_bedroom", "lsun_cat"])
def test_lsun_has_the_published_numbers(name: str) -> None:
    c = published(name)
    e, unet = c.teacher.edm, c.teacher.edm.unet
    assert (
        unet.channels == tuple(256 * m for m in (1, 1, 2, 2, 4, 4))
        and unet.layers_per_block == 2
        and unet.head_dim == 64
    )
    assert {256 // 2**level for level in unet.attention or ()} == {32, 16, 8}
    assert (e.batch_size, e.lr, e.dropout, e.conditional, e.ema) == (256, 1e-4, 0.1, False, 0.99994322)
    runs = {(r.method, r.loss, r.N + 1, r.solver, r.batch_size, r.lr, r.steps) for r in c.runs()}
    assert {("cd", "lpips", 40, "heun", 256, 1e-5, 600_000), ("ct", "lpips", 40, "heun", 256, 5e-5, 1_000_000)} <= runs
    assert c.hparams("cd") == {"mu": 0.95} and c.hparams("ct") == {"s0": 2, "s1": 150, "mu0": 0.95}
    assert (c.train.ema, c.train.weight_decay, c.data.resolution) == (0.99994322, 0, 256)
    assert c.data.caption == f"a photo of a {name.removeprefix('lsun_')}"
    # The two differ in nothing else.
    other = published("lsun_cat" if name == "lsun_bedroom" else "lsun_bedroom").model_dump()
    assert {**c.model_dump(), "preset": "", "data": {}} == {**other, "preset": "", "data": {}}


def test_celeba64_has_the_published_numbers() -> None:
    """thibautissenhuth/consistency_GC, configs/celebA_*.yaml; NVlabs/edm, README's line of FFHQ at 64×64."""
    c = published("celeba64")
    e, unet = c.teacher.edm, c.teacher.edm.unet
    assert unet.channels == tuple(128 * m for m in (1, 2, 2, 2)) and unet.layers_per_block == 4
    assert (e.batch_size, e.lr, e.dropout, e.conditional) == (256, 2e-4, 0.05, False)
    assert e.steps == 200e6 / 256 and e.warm_up == int(10e6 / 256)
    assert e.ema == pytest.approx(0.5 ** (256 / 0.5e6), abs=1e-6)
    assert {(r.batch_size, r.lr, r.steps) for r in c.runs()} == {(128, 8e-5, 150_000)}
    ict, gc = c.hparams("ict"), c.hparams("gc_ict")
    assert (ict["s0"], ict["s1"], ict["dropout"]) == (10, 1280, 0.2)
    assert (gc["s0"], gc["s1"], gc["dropout"], gc["p"], gc["ema"]) == (10, 1280, 0, 0.5, 0.9999)
    assert c.train.ema == 0.9999 and (c.data.crop, c.data.resolution) == (140, 64)


def test_plans_know_how_many_images_there_are() -> None:
    """Those of the published set, or as many as are taken of it."""
    assert {name: LAYOUTS[name].images for name in ("cifar10", "imagenet64", "celeba", "images")} == {
        "cifar10": 60_000, "imagenet64": 1_281_167 + 50_000, "celeba": 162_770 + 19_867 + 19_962, "images": None,
    }  # fmt: skip
    assert plan.images_of(published("imagenet64")) == 1_331_167 and plan.images_of(published("lsun_cat")) == 100_000
