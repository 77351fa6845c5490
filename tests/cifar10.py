"""An archive in the layout of CIFAR-10's binary version, small and of random images."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDER = "cifar-10-batches-bin"


def make_files(batch: int = 4, seed: int = 0) -> tuple[dict[str, bytes], np.ndarray, np.ndarray]:
    """Files by name, with the images (6·batch, 3, 32, 32) uint8 and classes (6·batch,) in the files' order, the test batch last."""
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (6 * batch, 3, 32, 32), dtype=np.uint8)
    classes = np.resize(draw.permutation(10), 6 * batch).astype(np.uint8)
    files = {"batches.meta.txt": "".join(f"{name}\n" for name in (*CLASSES, "")).encode(), "readme.html": b"<html>\n"}
    for i in range(6):
        rows = range(i * batch, (i + 1) * batch)
        records = b"".join(bytes([classes[r]]) + images[r].tobytes() for r in rows)
        files[f"data_batch_{i + 1}.bin" if i < 5 else "test_batch.bin"] = records
    return files, images, classes


def pack(files: dict[str, bytes], to: Path) -> str:
    """Write the archive; its sha256."""
    with tarfile.open(to, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{FOLDER}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return hashlib.sha256(to.read_bytes()).hexdigest()
