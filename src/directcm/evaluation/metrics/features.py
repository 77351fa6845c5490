"""The verb `features`: run an extractor over a sample set, over all sets of a run, or over the real images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from directcm.errors import UserError
from directcm.evaluation.metrics.samples import Prompt, open_image, read_prompts, read_samples, samples_inputs
from directcm.runtime.artifacts import Artifact, new_artifact, new_collection, save_tensors, write_csv

if TYPE_CHECKING:
    from directcm.evaluation.metrics.extractors import FeatureExtractor


def reference_rows(data: Artifact, prompts: Sequence[Prompt]) -> int:
    """Evaluation rows that stand for the data reference: the first min(n, n_train), whose images are all different."""
    count = min(len(prompts), int(data.json("data.json")["n_train"]))
    if len({p.id for p in prompts[:count]}) != count:
        raise UserError(
            f"{data.folder}: the noise's first {count} rows repeat an image; the noise was made from other data"
        )
    return count


def features(
    extractor: str | FeatureExtractor,
    samples: Sequence[Artifact] | None,
    data: Artifact,
    noise: Artifact,
    extractor_folder: Artifact | None,
    batch_size: int,
    out: str | Path,
    *,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the features artefact of a sample set (its shards), or of the data reference where `samples` is None.

    Images are read, checked and fed a batch at a time. The caption of a row is its prompt. `extractor` is a name of
    `specs.EXTRACTORS` (with `extractor_folder` where it was trained here) or an extractor that has been built.
    Features that are NaN or infinite are a UserError that names the row.
    """
    import torch

    from directcm.evaluation.metrics.extractors import build_extractor

    if isinstance(extractor, str):
        extractor = build_extractor(extractor, extractor_folder, device=device, batch_size=batch_size)
    prompts = read_prompts(noise)
    inputs: dict[str, Artifact] = {"noise": noise}
    if samples is None:
        rows = np.arange(reference_rows(data, prompts))
        names = {int(r["id"]): r["file_name"] for r in data.csv("images.csv")}
        missing = [p.id for p in prompts[: rows.size] if p.id not in names]
        if missing:
            raise UserError(
                f"{data.folder / 'images.csv'}: has no image {missing[0]}; the noise was made from other data"
            )
        files = [(data, names[prompts[i].id]) for i in rows]
        inputs["data"] = data
    else:
        joined = read_samples(samples, noise, len(prompts))
        rows = joined.rows
        files = [joined.image(i) for i in range(rows.size)]
        inputs |= samples_inputs(samples)
    if extractor_folder is not None:
        inputs["extractor"] = extractor_folder

    def batches() -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, rows.size, batch_size):
            part = slice(start, start + batch_size)
            images = [open_image(artifact, name) for artifact, name in files[part]]
            arrays = extractor.extract(images, [prompts[int(row)].text for row in rows[part]])
            for key, array in arrays.items():
                finite = np.isfinite(array.reshape(len(images), -1)).all(axis=1)
                if not finite.all():
                    row = int(rows[part][np.argmin(finite)])
                    artifact, name = files[start + int(np.argmin(finite))]
                    raise UserError(
                        f"{extractor.name}: {key} of row {row} ({artifact.folder / name}) is NaN or infinite; "
                        "make that image again"
                    )
            if progress is not None:
                progress(min(start + batch_size, rows.size), rows.size)
            yield arrays

    collected = list(batches())
    settings = {
        "extractor": extractor.name,
        "fingerprint": extractor.fingerprint,
        "of": "data" if samples is None else "samples",
    }
    with new_artifact(out, "features", settings=settings, inputs=inputs) as art:
        arrays = {key: np.concatenate([batch[key] for batch in collected]) for key in collected[0]}
        save_tensors(art / "features.safetensors", {k: torch.from_numpy(v) for k, v in arrays.items()})
        write_csv(art / "rows.csv", [{"row": int(row)} for row in rows], ["row"])
        art.counts = {"rows": int(rows.size)}
        art.provenance = {"device": str(extractor.device), "batch_size": batch_size, "threads": torch.get_num_threads()}


def features_collection(
    extractor: str | FeatureExtractor,
    samples: Mapping[str, Artifact],
    data: Artifact,
    noise: Artifact,
    extractor_folder: Artifact | None,
    batch_size: int,
    out: str | Path,
    *,
    device: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the features of a run's sample sets (by name, each one samples artefact) as a collection of that order.

    The extractor is built once; out/<name> is what `features` would write of that set. `progress` counts the images of
    all sets together. What else lies in a sub-folder of `out` is removed. No set at all is a UserError.
    """
    from directcm.evaluation.metrics.extractors import build_extractor

    if not samples:
        raise UserError("features: the collection of samples is empty; run the sample step again")
    if isinstance(extractor, str):
        extractor = build_extractor(extractor, extractor_folder, device=device, batch_size=batch_size)
    prompts = len(read_prompts(noise))
    sizes = [int(read_samples([part], noise, prompts).rows.size) for part in samples.values()]
    done = 0
    for (name, part), size in zip(samples.items(), sizes, strict=True):
        step = None if progress is None else _shifted(progress, done, sum(sizes))
        features(extractor, [part], data, noise, extractor_folder, batch_size, Path(out) / name, progress=step)
        done += size
    settings = {"extractor": extractor.name, "fingerprint": extractor.fingerprint}
    inputs = {"noise": noise} | ({} if extractor_folder is None else {"extractor": extractor_folder})
    new_collection(Path(out), "features", list(samples), settings=settings, inputs=inputs)


def _shifted(progress: Callable[[int, int], None], before: int, total: int) -> Callable[[int, int], None]:
    return lambda done, _: progress(before + done, total)
