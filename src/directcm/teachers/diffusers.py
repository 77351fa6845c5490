"""A teacher that exists already: any SDXL-type pipeline, by local path or by hub id and revision."""

from __future__ import annotations

from pathlib import Path

from directcm.artifacts import LOCATION, new_artifact, read_json, sha256, write_csv, write_json
from directcm.config import Diffusers, Process
from directcm.errors import UserError
from directcm.teachers.latent_diffusion import make_process

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
NEEDED = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
)


def _used(settings: Diffusers) -> list[str]:
    """The files of a pipeline that are read, as patterns: configurations, tokenizers, the weights of the variant asked for."""
    weights = f"*.{settings.variant}.safetensors*" if settings.variant else "*model.safetensors*"
    return [
        "model_index.json",
        "scheduler/*.json",
        *(f"{part}/config.json" for part in PARTS),
        *(f"{part}/{weights}" for part in PARTS),
        *(f"{part}/*model-*-of-*.safetensors" for part in PARTS if not settings.variant),
        *(f"{part}/*" for part in ("tokenizer", "tokenizer_2")),
    ]


def _hub(repository: str, revision: str, patterns: list[str], key: str) -> Path:
    """The folder of a pinned revision in the local hub cache; nothing is downloaded."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=True))
    except HFValidationError as error:
        raise UserError(f"teacher.diffusers.{key}: {repository!r} is not a hub repository's name ({error})") from None
    except (LocalEntryNotFoundError, FileNotFoundError):
        raise UserError(
            f"teacher.diffusers.{key}: {repository} at revision {revision} is not in the hub cache {constants.HF_HUB_CACHE}; on a machine "
            f"with a network run `hf download {repository} --revision {revision} {' '.join(f'--include {p!r}' for p in patterns)}` and copy the cache here (HF_HOME), "
            f"or download the files by hand into a folder and name it in teacher.diffusers.{key.replace('id', 'path')}"
        ) from None


def locate(settings: Diffusers) -> tuple[Path, Path | None]:
    """(pipeline folder, folder of the VAE that replaces its own or None), checked to be complete; UserError otherwise."""
    if settings.path:
        pipeline = Path(settings.path).resolve()
        if not pipeline.is_dir():
            raise UserError(
                f"teacher.diffusers.path: {pipeline} is not a folder; put a saved StableDiffusionXLPipeline there"
            )
    else:
        assert settings.id and settings.revision
        pipeline = _hub(settings.id, settings.revision, _used(settings), "id")
    for name in NEEDED:
        if not (pipeline / name).is_file():
            raise UserError(
                f"teacher: {pipeline / name} is missing; the folder is not a whole StableDiffusionXLPipeline"
            )
    for part in ("tokenizer", "tokenizer_2"):
        # transformers 5 writes tokenizer.json where earlier ones wrote vocab.json and merges.txt.
        if not any((pipeline / part / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            raise UserError(
                f"teacher: {pipeline / part} holds neither tokenizer.json nor vocab.json; download it whole"
            )
    kind = read_json(pipeline / "model_index.json").get("_class_name")
    if not str(kind).startswith("StableDiffusionXL"):
        raise UserError(
            f"teacher: {pipeline / 'model_index.json'} is of a {kind}, expected a StableDiffusionXLPipeline"
        )
    suffix = f".{settings.variant}.safetensors" if settings.variant else ".safetensors"
    for part in PARTS:
        if not list((pipeline / part).glob(f"*{suffix}")):
            raise UserError(f"teacher: no *{suffix} in {pipeline / part}; download the weights as safetensors")
    make_process(pipeline / "scheduler" / "scheduler_config.json", "zero_based")
    vae = None
    if settings.vae_path:
        vae = Path(settings.vae_path).resolve()
    elif settings.vae_id:
        assert settings.vae_revision
        vae = _hub(settings.vae_id, settings.vae_revision, ["config.json", "*.safetensors"], "vae_id")
    if vae is not None and not ((vae / "config.json").is_file() and list(vae.glob("*.safetensors"))):
        raise UserError(
            f"teacher.diffusers: {vae} holds no config.json with a *.safetensors; it is not a saved AutoencoderKL"
        )
    return pipeline, vae


def make(settings: Diffusers, process: Process, resolution: int, out: Path) -> None:
    """Record where the pinned pipeline lies and the sha256 of each of its files; nothing is copied."""
    pipeline, vae = locate(settings)
    schedule, _ = make_process(pipeline / "scheduler" / "scheduler_config.json", process.time_input)
    steps = int(schedule.start)
    if steps != process.timesteps:
        raise UserError(f"process.timesteps is {process.timesteps}, but the teacher was trained with {steps}")
    with new_artifact(
        out,
        "teacher",
        settings={"kind": "diffusers", **settings.model_dump(mode="json"), "process": process.model_dump()},
    ) as art:
        files = [
            {"part": part, "path": p.relative_to(folder).as_posix(), "sha256": sha256(p)}
            for part, folder, names in (
                ("pipeline", pipeline, _used(settings)),
                ("vae", vae, ["config.json", "*.safetensors"]),
            )
            if folder is not None
            for p in sorted({p for name in names for p in folder.glob(name)})
        ]
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
        write_json(art / LOCATION, {"pipeline": str(pipeline), "vae": str(vae) if vae else None})
        art.counts = {"files": len(files)}
