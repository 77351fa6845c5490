"""The verb `encode`: all images as the teacher diffuses them (latents or pixels), and the conditioning of all captions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from directcm.config import Encode
from directcm.diffusion.teachers import Conditioning, load_codec, loader
from directcm.diffusion.teachers.codec import open_image, to_tensor
from directcm.errors import UserError
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, new_artifact, save_tensors, write_csv
from directcm.runtime.blocks import batches, clear, work
from directcm.runtime.progress import Progress
from directcm.runtime.sources import digest
from directcm.runtime.threads import ahead

SHARD = 1024


def make(
    settings: Encode,
    teacher: Artifact,
    data: Artifact,
    seed: int,
    device: str,
    precision: str,
    scratch: Path,
    out: Path,
) -> None:
    """Write the latents artefact.

    `latents-00000.safetensors` …: "latents" (rows, c, h, w) float32, scaled, in the order of images.csv, 1,024 rows a file;
    `captions.csv`: caption, text; `images.csv`: id, caption, split; `captions-00000.safetensors` …: the conditioning, such as
    prompt_embeds and pooled, or label. A UserError where images of one caption have several labels and the teacher reads labels.
    """
    rows = data.csv("images.csv")
    texts = sorted({r["text"] for r in rows})
    index = {text: i for i, text in enumerate(texts)}
    codec = load_codec(teacher, device, precision)
    labels: dict[str, set[str]] = {}
    for r in rows:
        labels.setdefault(r["text"], set()).add(r["label"])
    progress = Progress("encode: images", len(rows), "image")

    def images(block: range) -> Iterator[dict[str, Tensor]]:
        read = ahead(lambda i: open_image(data, rows[i]), block, torch.get_num_threads())
        for ids in batches(block, settings.batch_size):
            draw = partial(rng.normal, seed, "posterior", ids) if settings.posterior == "sample" else None
            yield {"latents": codec.encode(to_tensor([*itertools.islice(read, len(ids))]), draw)}
            progress.update(len(ids))

    def captions(block: range) -> Iterator[dict[str, Tensor]]:
        for part in batches(block, settings.batch_size):
            some = [texts[i] for i in part]
            # Images of one caption may have several labels: a codec that reads labels gets all of them, and refuses.
            yield codec.condition(some, [" or ".join(sorted(labels[text])) for text in some]).tensors

    key = {
        "code": digest("distill.encode", loader(teacher)),
        "settings": settings.model_dump(),
        "teacher": teacher.fingerprint,
        "data": data.fingerprint,
        "seed": seed,
        "precision": precision,
    }

    def work_on(
        name: str,
        count: int,
        make: Callable[[range], Iterator[dict[str, Tensor]]],
        found: Callable[[range], None] | None = None,
    ) -> dict[str, Tensor]:
        """What `make` gives for 0 … count − 1, in blocks that a stopped job need not make again."""

        def block(rows: range) -> dict[str, Tensor]:
            parts = [*make(rows)]
            return {k: torch.cat([part[k].cpu() for part in parts]) for k in parts[0]}

        return work(scratch / name, key, batches(range(count), SHARD), block, found)

    latents = work_on("images", len(rows), images, lambda done: progress.skip(len(done)))["latents"]
    broken = torch.nonzero(~torch.isfinite(latents).flatten(1).all(1)).flatten().tolist()
    if broken:
        raise UserError(
            f"{data.folder / rows[broken[0]]['file_name']}: its latent is not finite; use evaluation.precision no or bf16"
        )
    table = work_on("captions", len(texts), captions)
    about = {**settings.model_dump(), "seed": seed, "precision": precision}
    with new_artifact(out, "latents", settings=about, inputs={"teacher": teacher, "data": data}) as art:
        for name, tensors in (("latents", {"latents": latents}), ("captions", table)):
            for n, parts in enumerate(zip(*(v.split(SHARD) for v in tensors.values()), strict=True)):
                save_tensors(art / f"{name}-{n:05d}.safetensors", dict(zip(tensors, parts, strict=True)))
        write_csv(art / "captions.csv", [{"caption": i, "text": t} for i, t in enumerate(texts)], ["caption", "text"])
        write_csv(
            art / "images.csv",
            [{"id": r["id"], "caption": index[r["text"]], "split": r["split"]} for r in rows],
            ["id", "caption", "split"],
        )
        art.counts = {"images": len(rows), "captions": len(texts), "shape": list(latents.shape[1:])}
    clear(scratch)


class Latents:
    """The latents artefact, read back: latents and conditioning by image id, read from disk as they are asked for."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        images = artifact.csv("images.csv")
        self.caption = torch.tensor([int(r["caption"]) for r in images])
        self.train = [i for i, r in enumerate(images) if r["split"] == "train"]
        self.held_out = [i for i, r in enumerate(images) if r["split"] == "held_out"]
        self.text = {r["text"]: int(r["caption"]) for r in artifact.csv("captions.csv")}
        self.shape = tuple(artifact.counts["shape"])

    def _rows(self, prefix: str, index: Tensor) -> dict[str, Tensor]:
        from safetensors import safe_open

        out: dict[str, list[Tensor]] = {}
        unique, back = index.unique(return_inverse=True)
        for n in sorted({int(i) // SHARD for i in unique}):
            with safe_open(str(self.artifact.file(f"{prefix}-{n:05d}.safetensors")), framework="pt") as file:
                for key in list(file.keys()):
                    part = file.get_slice(key)
                    for i in unique[(unique // SHARD) == n].tolist():
                        out.setdefault(key, []).append(part[i % SHARD : i % SHARD + 1])
        return {k: torch.cat(v)[back] for k, v in out.items()}

    def latents(self, ids: Tensor) -> Tensor:
        """Latents (B, c, h, w) of image ids (B,)."""
        return self._rows("latents", ids)["latents"]

    def conditioning(self, ids: Tensor) -> Conditioning:
        """Conditioning of the images' captions, (B, …)."""
        return Conditioning(self._rows("captions", self.caption[ids]))
