"""Which files hold the weights of a part of a pipeline: one answer for what is checked, pinned, named for download and opened.

diffusers and transformers save a part as one safetensors file or in shards with an index, either plain or of a variant, whose
name stands in two places (model.fp16-00001-of-00002.safetensors; of older ones model-00001-of-00002.fp16.safetensors).
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from directcm.errors import UserError
from directcm.runtime.artifacts import read_json

# What diffusers and transformers call their weights.
DIFFUSERS, TRANSFORMERS = "diffusion_pytorch_model", "model"
_INDEX = ".safetensors.index"


def config(path: Path) -> dict[str, Any]:
    """A configuration of the user's own teacher; a UserError that does not ask to delete it."""
    try:
        found = read_json(path)
    except UserError as error:
        raise UserError(
            f"teacher: {path} is not readable ({str(error).partition(': ')[2].partition(';')[0]}); download it again"
        ) from None
    if not isinstance(found, dict):
        raise UserError(f"teacher: {path} is not a configuration, it holds a {type(found).__name__}; download it again")
    return found


def single(stem: str, variant: str | None) -> str:
    """The name of weights in one file."""
    return f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"


def indices(stem: str, variant: str | None) -> list[str]:
    """The names that an index of shards may have, newest spelling first."""
    if not variant:
        return [f"{stem}{_INDEX}.json"]
    return [f"{stem}{_INDEX}.{variant}.json", f"{stem}.safetensors.{variant}.index.json"]


def patterns(stem: str, variant: str | None) -> list[str]:
    """Names and shell patterns of all files that may hold the weights: what to download."""
    shards = "-?????-of-?????"
    spelled = [f"{stem}.{variant}{shards}", f"{stem}{shards}.{variant}"] if variant else [f"{stem}{shards}"]
    return [single(stem, variant), *indices(stem, variant), *(f"{name}.safetensors" for name in spelled)]


def variants(folder: Path, stem: str) -> set[str | None]:
    """The variants of weights that a folder holds; None is the plain one."""
    shard = r"(?:-\d{5}-of-\d{5})?"
    pattern = rf"{re.escape(stem)}(?:\.([A-Za-z0-9_]+))?{shard}(?:\.([A-Za-z0-9_]+))?\.safetensors"
    return {found[1] or found[2] for name in _names(folder) if (found := re.fullmatch(pattern, name))}


def find(folder: Path, stem: str, variant: str | None, key: str) -> list[str]:
    """The names, in `folder`, of the files that hold the weights: one safetensors file, or an index and its shards.

    A UserError says what is there instead, and the configuration's `key` that names the variant.
    """
    index = next((name for name in indices(stem, variant) if (folder / name).is_file()), None)
    one = single(stem, variant)
    if (folder / one).is_file():
        if index is not None:
            raise UserError(
                f"teacher: {folder} holds {one} and {index}, weights in one file and in shards; remove those that are not meant"
            )
        return [one]
    if index is None:
        raise UserError(_missing(folder, stem, variant, key))
    found = config(folder / index).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(name, str) for name in found.values()):
        raise UserError(f"teacher: {folder / index} names no shards; download it again")
    shards = sorted(set(found.values()))
    for name in shards:
        if Path(name).name != name or not (folder / name).is_file():
            raise UserError(f"teacher: {folder / name} is missing, {index} names it; download the weights whole")
    return [index, *shards]


def tensors(folder: Path, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor in these files, from their headers; a UserError for a file that is no safetensors file."""
    from safetensors import safe_open

    out: dict[str, tuple[int, ...]] = {}
    for name in names:
        if not name.endswith(".safetensors"):
            continue
        path = folder / name
        try:
            with safe_open(path, framework="numpy") as opened:
                out |= {key: tuple(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118
        # Of a class of its own, or the system's without the file's name.
        except Exception as error:
            with open(path, "rb") as file:
                head = file.read(32)
            what = f"not a whole safetensors file ({' '.join(str(error).split())})"
            if head.startswith(b"version https://git-lfs"):
                what = "a pointer of git-lfs in the weights' place; run git lfs pull"
            raise UserError(f"teacher: {path} is {what}; download it again") from None
    return out


def _missing(folder: Path, stem: str, variant: str | None, key: str) -> str:
    wanted = f"no *{f'.{variant}' if variant else ''}.safetensors in {folder} that is {stem} in one file or in shards"
    others = sorted(name or "" for name in variants(folder, stem))
    if others:
        there = " or ".join(repr(name) if name else "null" for name in others)
        return f"teacher: {wanted}; there are weights of {key} {there}: set it, or download the others"
    pickled = [name for name in _names(folder) if name.endswith((".bin", ".ckpt", ".pt", ".pth"))]
    if pickled:
        return f"teacher: {wanted}; {pickled[0]} is pickled, which is not opened: download the weights as safetensors"
    return f"teacher: {wanted}; download the weights as safetensors"


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@contextmanager
def staged(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """A temporary folder that holds of `folder` its config.json and these weights alone, under the plain names.

    So a library opens what was found here and nothing else, whatever it looks for first. Links: nothing is copied.
    """
    with tempfile.TemporaryDirectory(prefix="directcm-") as made:
        place = Path(made)
        (place / "config.json").symlink_to((folder / "config.json").absolute())
        sharded = any(name.endswith(".json") for name in names)
        for name in names:
            stem = TRANSFORMERS if name.startswith((f"{TRANSFORMERS}.", f"{TRANSFORMERS}-")) else DIFFUSERS
            plain = name
            if name.endswith(".json"):
                plain = f"{stem}{_INDEX}.json"
            elif not sharded:
                plain = f"{stem}.safetensors"
            (place / plain).symlink_to((folder / name).absolute())
        yield place
