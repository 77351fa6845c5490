"""The verb `features`: run extractors over a sample set, over all sets of a run, or over the real images, in one pass over the images."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from directcm.errors import UserError
from directcm.evaluation.common import numbered
from directcm.evaluation.metrics.extractors import FeatureExtractor
from directcm.evaluation.metrics.samples import open_image, read_prompts, read_samples
from directcm.runtime.artifacts import MANIFEST, Artifact, new_artifact, new_collection, save_tensors, write_csv
from directcm.runtime.blocks import batches
from directcm.runtime.progress import Progress
from directcm.runtime.threads import ahead


def _images(
    samples: Sequence[Artifact] | None, data: Artifact, noise: Artifact
) -> tuple[np.ndarray, list[tuple[Artifact, str]], list[str], dict[str, Artifact]]:
    """Rows, image files, captions (their prompts) and the artefact's inputs: of a sample set, or of the data reference.

    The reference is the first min(n, n_train) rows, whose images are all different.
    """
    prompts = read_prompts(noise)
    if samples is None:
        rows = np.arange(min(len(prompts), int(data.json("data.json")["n_train"])))
        names = {int(r["id"]): r["file_name"] for r in data.csv("images.csv")}
        ids = [p.id for p in prompts[: rows.size]]
        if len(set(ids)) != rows.size:
            raise UserError(
                f"{data.folder}: the noise's first {rows.size} rows repeat an image; the noise was made from other data"
            )
        if missing := [i for i in ids if i not in names]:
            raise UserError(
                f"{data.folder / 'images.csv'}: has no image {missing[0]}; the noise was made from other data"
            )
        files = [(data, names[i]) for i in ids]
        inputs = {"data": data}
    else:
        joined = read_samples(samples, noise, len(prompts))
        rows = joined.rows
        files = [joined.image(i) for i in range(rows.size)]
        inputs = numbered("samples", samples)
    return rows, files, [prompts[int(row)].text for row in rows], {"noise": noise, **inputs}


@dataclass
class _Found:
    """What one extractor has found of a set so far: its arrays, batch by batch, and the seconds that it took for them."""

    extractor: FeatureExtractor
    arrays: list[dict[str, np.ndarray]] = field(default_factory=list)
    seconds: float = 0.0


def features(
    extractors: Sequence[FeatureExtractor],
    samples: Sequence[Artifact] | None,
    data: Artifact,
    noise: Artifact,
    batch_size: int,
    outs: Sequence[str | Path],
    progress: Progress | None = None,
) -> None:
    """Write the features artefacts of a sample set (its shards), or of the data reference where `samples` is None, to `outs`.

    There is one artefact for each extractor, in their order, and none before all are computed. Images are read, checked and decoded
    once, and fed a batch at a time to one extractor after the other. The caption of a row is its prompt. Features that are NaN or
    infinite are a UserError that names the row. `forward_seconds` of an artefact's provenance are those of its extractor alone (where two
    share a network those of the network are the first one's), `waiting_seconds` those in which all waited for images.
    """
    rows, files, texts, inputs = _images(samples, data, noise)
    progress = progress or Progress("features", rows.size, "image")
    found = [_Found(extractor) for extractor in extractors]
    # Those that share a network take the same prepared images.
    sources = [*dict.fromkeys(extractor.shares or extractor for extractor in extractors)]
    waited = 0.0

    def prepare(file: tuple[Artifact, str]) -> list[torch.Tensor]:
        image = open_image(*file)
        return [source.prepare(image) for source in sources]

    # Decoded and resized by threads while the extractors work.
    images = ahead(prepare, files, torch.get_num_threads(), least=batch_size)
    for some in batches(range(rows.size), batch_size):
        begun = time.perf_counter()
        prepared = zip(*itertools.islice(images, len(some)), strict=True)
        batch = {source: source.batch(part) for source, part in zip(sources, prepared, strict=True)}
        waited += time.perf_counter() - begun
        for one in found:
            begun = time.perf_counter()
            extractor = one.extractor
            arrays = extractor.of_prepared(batch[extractor.shares or extractor], texts[some.start : some.stop])
            one.seconds += time.perf_counter() - begun
            one.arrays.append(arrays)
            for key, array in arrays.items():
                finite = np.isfinite(array.reshape(len(some), -1)).all(axis=1)
                if not finite.all():
                    bad = some[int(np.argmin(finite))]
                    artifact, name = files[bad]
                    raise UserError(
                        f"{extractor.name}: {key} of row {rows[bad]} ({artifact.folder / name}) is NaN or infinite; "
                        "make that image again"
                    )
        progress.update(len(some))
    of = "data" if samples is None else "samples"
    for one, out in zip(found, outs, strict=True):
        settings = _about(one.extractor) | {"of": of}
        with new_artifact(out, "features", settings=settings, inputs=inputs | _trained(one.extractor)) as art:
            arrays = {key: np.concatenate([batch[key] for batch in one.arrays]) for key in one.arrays[0]}
            save_tensors(art / "features.safetensors", {key: torch.from_numpy(array) for key, array in arrays.items()})
            write_csv(art / "rows.csv", [{"row": int(row)} for row in rows], ["row"])
            art.counts = {"rows": int(rows.size)}
            art.provenance = {
                "device": str(one.extractor.device),
                "batch_size": batch_size,
                "threads": torch.get_num_threads(),
                "forward_seconds": round(one.seconds, 3),
                "waiting_seconds": round(waited, 3),
            }


def features_collection(
    extractors: Sequence[FeatureExtractor],
    samples: Mapping[str, Artifact],
    data: Artifact,
    noise: Artifact,
    batch_size: int,
    outs: Sequence[str | Path],
) -> None:
    """Write the features of a run's sample sets (by name, each one samples artefact) as a collection of that order for each extractor.

    out/<name> is what `features` would write of that set. What else lies in a sub-folder of an `out` is removed. No set at all is a
    UserError. Interrupted, it leaves no collection but those that are whole.
    """
    if not samples:
        raise UserError("features: the collection of samples is empty; run the sample step again")
    prompts = len(read_prompts(noise))
    total = sum(read_samples([part], noise, prompts).rows.size for part in samples.values())
    progress = Progress("features", total, "image")
    # A collection that is there is of parts that are now made anew.
    for out in outs:
        (Path(out) / MANIFEST).unlink(missing_ok=True)
    for name, part in samples.items():
        features(extractors, [part], data, noise, batch_size, [Path(out) / name for out in outs], progress)
    for extractor, out in zip(extractors, outs, strict=True):
        inputs = {"noise": noise} | _trained(extractor)
        new_collection(Path(out), "features", list(samples), settings=_about(extractor), inputs=inputs)


def _about(extractor: FeatureExtractor) -> dict[str, str]:
    return {"extractor": extractor.name, "fingerprint": extractor.fingerprint}


def _trained(extractor: FeatureExtractor) -> dict[str, Artifact]:
    return {} if extractor.folder is None else {"extractor": extractor.folder}
