"""A teacher that exists already: any SDXL-type pipeline, by local path or by hub id and revision."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from directcm.config import Diffusers, Process, local
from directcm.diffusion.teachers import latent_diffusion, weight_files
from directcm.diffusion.teachers.latent_diffusion import make_process
from directcm.errors import UserError
from directcm.runtime import outside
from directcm.runtime.artifacts import LOCATION, Artifact, new_artifact, read_csv, write_csv, write_json

KIND = {
    "rank": 2,
    "title": "an existing SDXL-type pipeline",
    "about": "an existing SDXL-type pipeline",
    "loader": "latent_diffusion",
    "processes": ("vp",),
    "latent": True,
    "learns": False,
    "pinned": True,
}

# Each part's folder, and what its weights are called.
PARTS = {
    "unet": weight_files.DIFFUSERS,
    "vae": weight_files.DIFFUSERS,
    "text_encoder": weight_files.TRANSFORMERS,
    "text_encoder_2": weight_files.TRANSFORMERS,
}
TOKENIZERS = ("tokenizer", "tokenizer_2")
SCHEDULER = "scheduler/scheduler_config.json"
CONFIGS = ("model_index.json", SCHEDULER, *(f"{part}/config.json" for part in PARTS))
# The classes that a pipeline's parts have to be of.
CLASSES = {
    "unet": "UNet2DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
    "tokenizer": "CLIPTokenizer",
    "tokenizer_2": "CLIPTokenizer",
}
# What model_index.json may say beside its parts: of these nothing changes a number here (a watermark is never added), or it is checked.
_UNUSED = ("scheduler", "image_encoder", "feature_extractor", "add_watermarker", "force_zeros_for_empty_prompt")


@dataclass(frozen=True)
class Located:
    """A pipeline's folder, that of a VAE that replaces the pipeline's (or None), and all that is read of them.

    `files`: (part, name, path) of every file, where part is "pipeline" or "vae". `weights`: the folder and the names of the weights of each of PARTS.
    """

    pipeline: Path
    vae: Path | None
    files: tuple[tuple[str, str, Path], ...]
    weights: dict[str, tuple[Path, list[str]]]


def _demand(true: bool, message: str) -> None:
    if not true:
        raise UserError(f"teacher: {message}")


def _hub(repository: str, revision: str, patterns: list[str], key: str) -> Path:
    """The folder of a pinned revision in the local hub cache; nothing is downloaded."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=True))
    except HFValidationError as error:
        raise UserError(f"teacher.diffusers.{key}: {repository!r} is not a hub repository's name ({error})") from None
    except (LocalEntryNotFoundError, FileNotFoundError):
        includes = " ".join(f"--include {shlex.quote(p)}" for p in patterns)
        raise UserError(
            f"teacher.diffusers.{key}: {repository} at revision {revision} is not in the hub cache {constants.HF_HUB_CACHE}; on a machine "
            f"with a network run `hf download {repository} --revision {revision} {includes}` and copy the cache here (HF_HOME), "
            f"or download the files by hand into a folder and name it in teacher.diffusers.{key.replace('id', 'path')}"
        ) from None


def locate(settings: Diffusers, resolution: int | None = None) -> Located:
    """The pipeline and its VAE's replacement, checked to be whole and to be what this project reads; UserError otherwise.

    `resolution` (pixels): the images' side, which the U-Net's has to fit, where it is known.
    """
    if settings.path:
        pipeline = local(settings.path).resolve()
        if not pipeline.is_dir():
            raise UserError(
                f"teacher.diffusers.path: {pipeline} is not a folder; put a saved StableDiffusionXLPipeline there"
            )
    else:
        assert settings.id and settings.revision
        weights = [f"{p}/{name}" for p, stem in PARTS.items() for name in weight_files.patterns(stem, settings.variant)]
        wanted = [*CONFIGS, *weights, *(f"{part}/*" for part in TOKENIZERS)]
        pipeline = _hub(settings.id, settings.revision, wanted, "id")
    for path in (pipeline / name for name in CONFIGS):
        _demand(path.is_file(), f"{path} is missing; the folder is not a whole StableDiffusionXLPipeline")
    vae = None
    if settings.vae_path:
        vae = local(settings.vae_path).resolve()
    elif settings.vae_id:
        assert settings.vae_revision
        wanted = ["config.json", *weight_files.patterns(weight_files.DIFFUSERS, settings.vae_variant)]
        vae = _hub(settings.vae_id, settings.vae_revision, wanted, "vae_id")
    if vae is not None and not (vae / "config.json").is_file():
        raise UserError(f"teacher.diffusers: {vae} holds no config.json; it is not a saved AutoencoderKL")
    try:
        _check_pipeline(pipeline, vae, resolution)
    except (TypeError, ValueError, AttributeError, KeyError, IndexError) as error:
        raise UserError(
            f"teacher: a configuration in {pipeline}{f' or {vae}' if vae else ''} says what no SDXL-type pipeline says "
            f"({type(error).__name__}: {error}); download it again"
        ) from None
    names = [*CONFIGS]
    found: dict[str, tuple[Path, list[str]]] = {}
    there = {part: weight_files.variants(pipeline / part, stem) for part, stem in PARTS.items()}
    # As diffusers: a part that has no weights of the variant is taken plain, where another part has some.
    mixed = any(settings.variant in variants for variants in there.values())
    for part, stem in PARTS.items():
        variant = None if mixed and settings.variant not in there[part] and None in there[part] else settings.variant
        found[part] = pipeline / part, weight_files.find(pipeline / part, stem, variant, "teacher.diffusers.variant")
        weight_files.tensors(*found[part])
        names += [f"{part}/{name}" for name in found[part][1]]
    for part in TOKENIZERS:
        names += [f"{part}/{name}" for name in _tokenizer(pipeline / part)]
    files = [("pipeline", name, pipeline / name) for name in sorted(names)]
    if vae is not None:
        key = "teacher.diffusers.vae_variant"
        found["vae"] = vae, weight_files.find(vae, weight_files.DIFFUSERS, settings.vae_variant, key)
        weight_files.tensors(*found["vae"])
        files += [("vae", name, vae / name) for name in sorted(["config.json", *found["vae"][1]])]
    return Located(pipeline, vae, tuple(files), found)


def _tokenizer(folder: Path) -> list[str]:
    """The names of a tokenizer's files; a UserError where it is not whole."""
    names = [path.name for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    # transformers 5 writes tokenizer.json where earlier ones wrote vocab.json and merges.txt.
    _demand(
        "tokenizer.json" in names or {"vocab.json", "merges.txt"} <= set(names),
        f"{folder} holds neither tokenizer.json nor vocab.json with merges.txt; download it whole",
    )
    file = folder / "tokenizer_config.json"
    length = weight_files.config(file).get("model_max_length") if file.is_file() else None
    _demand(
        isinstance(length, int) and 0 < length < 10**6,
        f"{file} says model_max_length = {length!r}, the number of tokens a caption is cut to; download it whole",
    )
    return names


def _expect(path: Path, config: dict[str, Any], **wanted: Any) -> None:
    """A UserError for the first key that says something else than is computed with; a key that is not there means None."""
    for key, value in wanted.items():
        found = config.get(key)
        _demand(
            (tuple(found) if isinstance(found, list) else found) == value,
            f"{path} says {key} = {found!r}, expected {value!r}: an SDXL-type teacher is needed",
        )


def _check_pipeline(pipeline: Path, vae_folder: Path | None, resolution: int | None) -> None:
    """Whether what the configurations say is what is computed here: every key of theirs that changes numbers."""
    index_file = pipeline / "model_index.json"
    index = weight_files.config(index_file)
    kind = index.get("_class_name")
    zeros = index.get("force_zeros_for_empty_prompt", True)
    _demand(
        kind == "StableDiffusionXLPipeline",
        f"{index_file} is of a {kind}, expected a StableDiffusionXLPipeline; save the same parts as one, if they are SDXL's",
    )
    _demand(
        zeros is True,
        f"{index_file} says force_zeros_for_empty_prompt = {zeros!r}: its guidance is "
        "away from the empty caption, here it is away from zeros; distil a teacher that was trained so, where it is true",
    )
    for name, value in index.items():
        if name in CLASSES:
            found = value[1] if isinstance(value, list) and len(value) == 2 else value
            _demand(
                found in (CLASSES[name], f"{CLASSES[name]}Fast"),
                f"{index_file} says {name} is a {found}, expected a {CLASSES[name]}",
            )
        elif not name.startswith("_") and name not in _UNUSED:
            _demand(
                value in (None, False, [None, None]),
                f"{index_file} says {name} = {value!r}, which is not computed here; use one without it",
            )
    make_process(pipeline / SCHEDULER, "zero_based")
    paths = {part: pipeline / part / "config.json" for part in PARTS}
    if vae_folder:
        paths["vae"] = vae_folder / "config.json"
    configs = {part: weight_files.config(path) for part, path in paths.items()}
    unet, vae = configs["unet"], configs["vae"]
    _expect(paths["vae"], vae, latents_mean=None, latents_std=None, shift_factor=None)
    for part in ("vae", "unet"):
        found = configs[part].get("_class_name", CLASSES[part])
        _demand(found == CLASSES[part], f"{paths[part]} is of a {found}, expected an {CLASSES[part]}")
    channels = vae.get("latent_channels", 4)
    for key in ("in_channels", "out_channels"):
        _demand(
            unet.get(key, 4) == channels,
            f"{paths['unet']} says {key} = {unet.get(key, 4)!r}, {paths['vae']} says latent_channels = {channels!r}: a U-Net that "
            "takes and gives latents alone is needed, no inpainting one",
        )
    _expect(
        paths["unet"],
        unet,
        addition_embed_type="text_time",
        time_cond_proj_dim=None,
        class_embed_type=None,
        num_class_embeds=None,
        encoder_hid_dim=None,
        encoder_hid_dim_type=None,
    )
    for part in PARTS:
        _expect(paths[part], configs[part], quantization_config=None)
    # transformers' own defaults (CLIPTextConfig) where a key is left out.
    width = sum(configs[part].get("hidden_size", 512) for part in ("text_encoder", "text_encoder_2"))
    across = unet.get("cross_attention_dim")
    _demand(
        across is None or set(across if isinstance(across, list) else [across]) == {width},
        f"{paths['unet']} says cross_attention_dim = {across!r}, but its two text encoders give {width}",
    )
    key = "projection_class_embeddings_input_dim"
    pooled = configs["text_encoder_2"].get("projection_dim", 512) + 6 * unet.get("addition_time_embed_dim", 0)
    _demand(
        unet.get(key) == pooled,
        f"{paths['unet']} says {key} = {unet.get(key)!r}, "
        f"but pooled text and six numbers of size and crop give {pooled}: it is told something else than SDXL",
    )
    if resolution is not None:
        factor = 2 ** (len(vae.get("block_out_channels", [0])) - 1)
        side = unet.get("sample_size")
        if isinstance(side, list) and len(set(side)) == 1:
            side = side[0]
        _demand(
            side is not None and side * factor == resolution,
            f"{paths['unet']} says sample_size = {side!r}, latents of {(side or 0) * factor} pixels, but data.resolution is {resolution}; make them fit",
        )


def _rows(found: Located, kept: Path | None = None) -> list[dict[str, str]]:
    """part, path and sha256 of every file that is read."""
    read = outside.rows([(name, path) for _, name, path in found.files], kept)
    return [
        {"part": part, "path": name, "sha256": str(row["sha256"])}
        for (part, name, _), row in zip(found.files, read, strict=True)
    ]


def _digest(rows: list[dict[str, str]]) -> str:
    return outside.digest({"name": f"{row['part']}/{row['path']}", "sha256": row["sha256"]} for row in rows)


def content(settings: Diffusers, folder: Path) -> str:
    """A digest of the pipeline's files; of one that is not here any more that of the artefact in `folder`."""
    try:
        found = locate(settings)
    except UserError as error:
        recorded = folder / "files.csv"
        gone = settings.path is None or not local(settings.path).is_dir()
        if gone and recorded.is_file():
            return _digest(read_csv(recorded))
        return f"not usable: {error}"
    return _digest(_rows(found, outside.KEPT))


def check_tensors(found: Located) -> None:
    """Whether the weights are those of the configurations: every tensor there, in its shape. A UserError names the first that is not.

    The networks are made without memory. Text encoders are opened as they will be, for transformers renames their tensors.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    for part, kind in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        folder, names = found.weights[part]
        with torch.device("meta"):
            wanted = kind.from_config(weight_files.config(folder / "config.json")).state_dict()
        there = weight_files.tensors(folder, names)
        # Of older VAEs the attention's names are others, which diffusers renames.
        renamed = part == "vae" and any(".query.weight" in key for key in there)
        for key, tensor in () if renamed else wanted.items():
            what = f"has the shape {list(there[key])}" if key in there else "is not there"
            _demand(
                there.get(key) == tuple(tensor.shape),
                f"{folder}: {key} {what}, {folder / 'config.json'} asks for {list(tensor.shape)}; download the weights whole",
            )
    for part in ("text_encoder", "text_encoder_2"):
        latent_diffusion.open_text_encoder(part, *found.weights[part], "cpu", "no")


def make(settings: Diffusers, process: Process, data: Artifact, seed: int, scratch: Path, out: Path) -> None:
    """`pin` it for images of the data's resolution."""
    pin(settings, process, data.json("data.json")["resolution"], out)


def pin(settings: Diffusers, process: Process, resolution: int, out: Path) -> None:
    """Record where the pinned pipeline lies and the sha256 of each of its files; nothing is copied."""
    found = locate(settings, resolution)
    schedule, _ = make_process(found.pipeline / SCHEDULER, process.time_input)
    steps = int(schedule.start)
    if steps != process.timesteps:
        raise UserError(f"process.timesteps is {process.timesteps}, but the teacher was trained with {steps}")
    check_tensors(found)
    about = {"kind": "diffusers", **settings.model_dump(mode="json"), "process": process.model_dump()}
    with new_artifact(out, "teacher", settings=about) as art:
        files = _rows(found)
        write_csv(art / "files.csv", files, ["part", "path", "sha256"])
        write_json(
            art / "teacher.json",
            {
                "loader": "latent_diffusion",
                "pinned": True,
                "variant": settings.variant,
                "time_input": process.time_input,
                "resolution": resolution,
            },
        )
        write_json(art / LOCATION, {"pipeline": str(found.pipeline), "vae": str(found.vae) if found.vae else None})
        art.counts = {"files": len(files)}
