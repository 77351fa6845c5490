"""Small stand-ins of published data sets, of random images, in the layouts in which these come."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def pack(folder: Path, to: Path, top: str = "") -> str:
    """A tar.gz or a zip, by its name, of all files of a folder, below `top`; its sha256."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    named = [(path, f"{top}{path.relative_to(folder).as_posix()}") for path in files]
    if to.suffix == ".zip":
        with zipfile.ZipFile(to, "w") as made:
            for path, name in named:
                made.write(path, name)
    else:
        with tarfile.open(to, "w:gz") as tar:
            for path, name in named:
                tar.add(path, name)
    return hashlib.sha256(to.read_bytes()).hexdigest()


def draw(seed: int, height: int, width: int) -> np.ndarray:
    """A random image (height, width, 3), smooth enough for JPEG and WebP to keep what it shows."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


def imagenet64(folder: Path, batches: int = 11, rows: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """npz files as Chrabaszcz et al. give them, and map_clsloc.txt; images (n, 64, 64, 3) and labels (n,) in the files' order."""
    folder.mkdir(parents=True)
    made = np.random.default_rng(0)
    images = made.integers(0, 256, ((batches + 1) * rows, 3 * 64 * 64), dtype=np.uint8)
    labels = np.resize([1, 1000, 517, 134, 2], len(images)).astype(np.int64)
    for i in range(batches + 1):
        some = slice(i * rows, (i + 1) * rows)
        name = f"train_data_batch_{i + 1}.npz" if i < batches else "val_data.npz"
        arrays = {"data": images[some], "labels": labels[some]}
        np.savez(folder / name, **arrays, **({"mean": images.mean(0)} if i < batches else {}))
    words = ["n02119789 1 kit_fox", "n02100735 2 English_setter", "n02012849 134 crane", "n03126707 517 crane"]
    (folder / "map_clsloc.txt").write_text("\n".join([*words, "n15075141 1000 toilet_tissue"]) + "\n")
    return np.moveaxis(images.reshape(-1, 3, 64, 64), 1, 3), labels


def lsun(
    folder: Path, count: int = 5, kind: str = "WEBP", ending: str = ".webp", flat: bool = False
) -> dict[str, np.ndarray]:
    """Files as `data.py export` of LSUN's authors writes them, in folders of a key's first six letters; pixels by name."""
    made = {}
    for i in range(count):
        # Keys are hashes of 40 hex digits; the shorter side is 256 pixels.
        key = hashlib.sha1(str(i).encode()).hexdigest()
        name = f"{'' if flat else '/'.join(key[:6]) + '/'}{key}{ending}"
        made[name] = draw(i, 256, 320 + 16 * i) if i % 2 else draw(i, 300 + 2 * i, 256)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(made[name], kind))
    return dict(sorted(made.items()))


def celeba(folder: Path, parts: str = "0010210") -> list[np.ndarray]:
    """img_align_celeba/000001.jpg … of 178×218 pixels and list_eval_partition.txt; the pixels that the JPEG files hold."""
    (folder / "img_align_celeba").mkdir(parents=True)
    pixels = []
    for i in range(len(parts)):
        data = encoded(draw(100 + i, 218, 178), "JPEG")
        (folder / "img_align_celeba" / f"{i + 1:06d}.jpg").write_bytes(data)
        pixels.append(np.asarray(Image.open(io.BytesIO(data))))
    table = "".join(f"{i + 1:06d}.jpg {part}\n" for i, part in enumerate(parts))
    (folder / "list_eval_partition.txt").write_text(table)
    return pixels


def classes(folder: Path) -> dict[str, np.ndarray]:
    """A folder for each class with a few images, PNG and JPEG; pixels by name, of the former exact."""
    made = {}
    for i, name in enumerate(
        ("n01440764/a.JPEG", "n01440764/b.png", "owl_eyed/c.png", "owl_eyed/more/d.png", "zebra/e.png")
    ):
        made[name] = draw(i, 40 + 2 * i, 48)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded(made[name], "JPEG" if name.endswith("JPEG") else "PNG"))
    return made
