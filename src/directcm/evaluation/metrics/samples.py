"""Reading the evaluation's artefacts: sample sets in shards, and the prompts behind the rows. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from directcm.errors import UserError
from directcm.runtime.artifacts import Artifact


@dataclass(frozen=True)
class Prompt:
    """A row of the evaluation: the data image behind it, its caption and its label ("" where there is none)."""

    row: int
    id: int
    text: str
    label: str


def read_prompts(noise: Artifact) -> list[Prompt]:
    """The prompts of a noise artefact, in the order of rows 0 … n − 1; another order is a UserError."""
    prompts = [Prompt(int(r["row"]), int(r["id"]), r["text"], r["label"] or "") for r in noise.csv("prompts.csv")]
    if [p.row for p in prompts] != list(range(len(prompts))):
        raise UserError(f"{noise.folder / 'prompts.csv'}: rows are not 0 to n − 1 in order; run the noise step again")
    return prompts


@dataclass(frozen=True)
class SampleSet:
    """Shards of one sample set, put together: rows (m,) ascending, the shard of each, and its place in the shards' concatenation."""

    shards: tuple[Artifact, ...]
    rows: np.ndarray
    _shard: np.ndarray
    _place: np.ndarray

    def image(self, index: int) -> tuple[Artifact, str]:
        """The artefact and the file name of the index-th image."""
        return self.shards[int(self._shard[index])], f"images/{int(self.rows[index]):05d}.png"

    def latents(self) -> np.ndarray:
        """Final latents (m, c, h, w) in the order of `rows`."""
        arrays = [shard.arrays("latents.safetensors")["latents"] for shard in self.shards]
        if len({array.shape[1:] for array in arrays}) > 1:
            raise UserError(f"{self.shards[0].folder}: its shards hold latents of different shapes")
        return np.concatenate(arrays)[self._place]


def read_samples(shards: Sequence[Artifact], noise: Artifact, prompts: int) -> SampleSet:
    """Put a set's shards together; rows that repeat or lie beyond the prompts, or another noise, are a UserError."""
    if not shards:
        raise UserError("samples: no folder was given")
    for shard in shards:
        if shard.manifest["inputs"].get("noise", noise.fingerprint) != noise.fingerprint:
            raise UserError(
                f"{shard.folder}: was made from another noise than {noise.folder}; run the sample step again"
            )
    rows = [shard.arrays("latents.safetensors")["rows"].astype(np.int64) for shard in shards]
    place = np.argsort(np.concatenate(rows), kind="stable")
    joined = np.concatenate(rows)[place]
    of = np.repeat(np.arange(len(rows)), [part.size for part in rows])[place]
    if np.unique(joined).size != joined.size:
        raise UserError(
            f"{shards[0].folder}: row {int(joined[:-1][joined[1:] == joined[:-1]][0])} is in two shards; "
            "a shard was given twice"
        )
    if joined.size == 0 or joined[0] < 0 or joined[-1] >= prompts:
        raise UserError(
            f"{shards[0].folder}: its rows are not among the {prompts} of {noise.folder}; they come from another noise"
        )
    return SampleSet(tuple(shards), joined, of, place)


def open_image(artifact: Artifact, name: str) -> Image.Image:
    """A checked image file of an artefact, RGB, read into memory."""
    with Image.open(artifact.file(name)) as image:
        return image.convert("RGB")
