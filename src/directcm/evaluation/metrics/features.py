"""The verb `features`: run an extractor over a sample set, over all sets of a run, or over the real images."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from directcm.errors import UserError
from directcm.evaluation.common import numbered
from directcm.evaluation.metrics.extractors import FeatureExtractor
from directcm.evaluation.metrics.samples import open_image, read_prompts, read_samples
from directcm.runtime.artifacts import Artifact, new_artifact, new_collection, save_tensors, write_csv
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


def features(
    extractor: FeatureExtractor,
    samples: Sequence[Artifact] | None,
    data: Artifact,
    noise: Artifact,
    batch_size: int,
    out: str | Path,
    progress: Progress | None = None,
) -> None:
    """Write the features artefact of a sample set (its shards), or of the data reference where `samples` is None.

    Images are read, checked and fed a batch at a time. The caption of a row is its prompt. Features that are NaN or infinite are a
    UserError that names the row.
    """
    rows, files, texts, inputs = _images(samples, data, noise)
    progress = progress or Progress(f"features: {extractor.name}", rows.size, "image")
    found: list[dict[str, np.ndarray]] = []
    # Decoded and resized by threads while the extractor works.
    images = ahead(lambda file: extractor.prepare(open_image(*file)), files, torch.get_num_threads())
    for some in batches(range(rows.size), batch_size):
        found.append(extractor.of_prepared([*itertools.islice(images, len(some))], texts[some.start : some.stop]))
        for key, array in found[-1].items():
            finite = np.isfinite(array.reshape(len(some), -1)).all(axis=1)
            if not finite.all():
                bad = some[int(np.argmin(finite))]
                artifact, name = files[bad]
                raise UserError(
                    f"{extractor.name}: {key} of row {rows[bad]} ({artifact.folder / name}) is NaN or infinite; "
                    "make that image again"
                )
        progress.update(len(some))
    settings = _about(extractor) | {"of": "data" if samples is None else "samples"}
    with new_artifact(out, "features", settings=settings, inputs=inputs | _trained(extractor)) as art:
        arrays = {key: torch.from_numpy(np.concatenate([batch[key] for batch in found])) for key in found[0]}
        save_tensors(art / "features.safetensors", arrays)
        write_csv(art / "rows.csv", [{"row": int(row)} for row in rows], ["row"])
        art.counts = {"rows": int(rows.size)}
        art.provenance = {"device": str(extractor.device), "batch_size": batch_size, "threads": torch.get_num_threads()}


def features_collection(
    extractor: FeatureExtractor,
    samples: Mapping[str, Artifact],
    data: Artifact,
    noise: Artifact,
    batch_size: int,
    out: str | Path,
) -> None:
    """Write the features of a run's sample sets (by name, each one samples artefact) as a collection of that order.

    out/<name> is what `features` would write of that set. What else lies in a sub-folder of `out` is removed. No set at all is a
    UserError.
    """
    if not samples:
        raise UserError("features: the collection of samples is empty; run the sample step again")
    prompts = len(read_prompts(noise))
    total = sum(read_samples([part], noise, prompts).rows.size for part in samples.values())
    progress = Progress(f"features: {extractor.name}", total, "image")
    for name, part in samples.items():
        features(extractor, [part], data, noise, batch_size, Path(out) / name, progress)
    inputs = {"noise": noise} | _trained(extractor)
    new_collection(Path(out), "features", list(samples), settings=_about(extractor), inputs=inputs)


def _about(extractor: FeatureExtractor) -> dict[str, str]:
    return {"extractor": extractor.name, "fingerprint": extractor.fingerprint}


def _trained(extractor: FeatureExtractor) -> dict[str, Artifact]:
    return {} if extractor.folder is None else {"extractor": extractor.folder}
