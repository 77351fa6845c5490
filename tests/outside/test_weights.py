"""A teacher that exists already: one list of weight files in every spelling, and configurations that are read, not guessed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from directcm.config import Diffusers, Process
from directcm.diffusion.teachers import diffusers, load
from directcm.diffusion.teachers.latent_diffusion import TextEncoders, load_vae
from directcm.errors import UserError
from directcm.runtime.artifacts import open_artifact

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow

SIDE = 16


@pytest.fixture(scope="module")
def pipeline(tiny: Any) -> Any:
    """The tiny teacher as stock diffusers holds it."""
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline.from_pretrained(tiny.teacher.folder)


def spelled(pipeline: Any, to: Path, variant: str | None, shards: bool, *, old: bool = False) -> Path:
    """The pipeline as diffusers saves it, weights spelled so; `old`: the variant behind the shard's number, as it once was."""
    pipeline.save_pretrained(to, variant=variant)
    if not shards:
        return to
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        for file in (to / part).glob("*.safetensors"):
            size = file.stat().st_size
            file.unlink()
        getattr(pipeline, part).save_pretrained(to / part, variant=variant, max_shard_size=size // 2 + 1)
        (index,) = (to / part).glob("*.index*.json")
        content = json.loads(index.read_text())
        assert len(set(content["weight_map"].values())) > 1
        if old:
            stem, _, _ = index.name.partition(".safetensors")
            for name in sorted(set(content["weight_map"].values())):
                new = name.replace(f".{variant}-", "-").replace(".safetensors", f".{variant}.safetensors")
                (to / part / name).rename(to / part / new)
                content["weight_map"] = {k: new if v == name else v for k, v in content["weight_map"].items()}
            index.unlink()
            named = f"{stem}.safetensors.{variant}.index.json" if part in ("unet", "vae") else index.name
            (to / part / named).write_text(json.dumps(content))
    return to


SPELLINGS = {
    "plain": (None, False, False),
    "variant": ("fp16", False, False),
    "sharded": (None, True, False),
    "sharded variant": ("fp16", True, False),
    "sharded variant, old spelling": ("fp16", True, True),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_checked_pinned_and_opened_are_one_list(spelling: str, pipeline: Any, tmp_path: Path) -> None:
    """The pinned files alone, in an empty folder, are the teacher; without any one of them it is refused before a job."""
    variant, shards, old = SPELLINGS[spelling]
    folder = spelled(pipeline, tmp_path / "v1.0 pipeline", variant, shards, old=old)
    # A decoy of another spelling: never pinned, never opened.
    (folder / "unet" / "diffusion_pytorch_model.bf16.safetensors").write_bytes(b"no weights")
    settings = Diffusers(path=str(folder), variant=variant)
    diffusers.pin(settings, Process(), SIDE, tmp_path / "teacher")
    names = [row["path"] for row in open_artifact(tmp_path / "teacher", "teacher").csv("files.csv")]
    weights = [name for name in names if ".safetensors" in name]
    assert len([name for name in weights if name.endswith(".safetensors")]) >= (8 if shards else 4)
    assert not any("bf16" in name for name in names)
    alone = tmp_path / "v1.0 alone"
    for name in names:
        (alone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, alone / name)
    diffusers.pin(Diffusers(path=str(alone), variant=variant), Process(), SIDE, tmp_path / "again")
    teacher = open_artifact(tmp_path / "again", "teacher")
    opened = load(teacher).network.state_dict()
    assert all(torch.equal(opened[k], v) for k, v in pipeline.unet.state_dict().items())
    assert all(
        torch.equal(a, b) for a, b in zip(load_vae(teacher).parameters(), pipeline.vae.parameters(), strict=True)
    )
    encoders = TextEncoders.load(teacher).encoders
    for mine, theirs in zip(encoders, (pipeline.text_encoder, pipeline.text_encoder_2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))
    for name in weights:
        (alone / name).rename(tmp_path / "aside")
        with pytest.raises(UserError, match="teacher"):
            diffusers.locate(Diffusers(path=str(alone), variant=variant))
        (tmp_path / "aside").rename(alone / name)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_download_it_names_brings_the_whole_list(spelling: str, pipeline: Any, tmp_path: Path) -> None:
    """The patterns of `hf download`, as huggingface_hub applies them to a repository that holds every spelling at once."""
    from huggingface_hub.utils import filter_repo_objects

    variant, shards, old = SPELLINGS[spelling]
    folder = spelled(pipeline, tmp_path / "pipeline", variant, shards, old=old)
    everything = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    with pytest.raises(UserError) as error:
        diffusers.locate(Diffusers(id="nobody/nothing", revision="a" * 40, variant=variant))
    import shlex

    words = shlex.split(str(error.value).split("`")[1])
    patterns = [words[i + 1] for i, word in enumerate(words) if word == "--include"]
    fetched = list(filter_repo_objects(everything, allow_patterns=patterns))
    diffusers.pin(Diffusers(path=str(folder), variant=variant), Process(), SIDE, tmp_path / "teacher")
    pinned = {row["path"] for row in open_artifact(tmp_path / "teacher", "teacher").csv("files.csv")}
    assert pinned <= set(fetched)
    # Of other variants nothing is fetched.
    others = [
        "unet/diffusion_pytorch_model.bf16.safetensors",
        "unet/diffusion_pytorch_model.bf16-00001-of-00002.safetensors",
    ]
    assert not list(filter_repo_objects(others, allow_patterns=patterns))


def test_a_variant_alone_is_named(pipeline: Any, tmp_path: Path, one_line: Any) -> None:
    folder = spelled(pipeline, tmp_path / "pipeline", "fp16", False)
    with pytest.raises(UserError) as error:
        diffusers.locate(Diffusers(path=str(folder)))
    assert "teacher.diffusers.variant 'fp16'" in one_line(error)
    vae = tmp_path / "vae"
    shutil.copytree(folder / "vae", vae)
    with pytest.raises(UserError) as error:
        diffusers.locate(Diffusers(path=str(folder), variant="fp16", vae_path=str(vae)))
    assert "teacher.diffusers.vae_variant 'fp16'" in one_line(error)
    settings = Diffusers(path=str(folder), variant="fp16", vae_path=str(vae), vae_variant="fp16")
    diffusers.pin(settings, Process(), SIDE, tmp_path / "teacher")
    assert load_vae(open_artifact(tmp_path / "teacher", "teacher")).config.latent_channels == 4


def _drop(path: Path, tensor: str) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(path)
    del state[next(key for key in state if key.endswith(tensor))]
    save_file(state, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("part", "name", "tensor"),
    [
        ("unet", "diffusion_pytorch_model.safetensors", "conv_out.weight"),
        ("vae", "diffusion_pytorch_model.safetensors", "decoder.conv_out.weight"),
        ("text_encoder_2", "model.safetensors", "text_projection.weight"),
        ("text_encoder", "model.safetensors", "final_layer_norm.weight"),
    ],
)
def test_weights_that_lack_a_tensor_are_refused(
    part: str, name: str, tensor: str, pipeline: Any, tmp_path: Path, one_line: Any
) -> None:
    """Libraries fill it in at random."""
    folder = spelled(pipeline, tmp_path / "pipeline", None, False)
    _drop(folder / part / name, tensor)
    with pytest.raises(UserError) as error:
        diffusers.pin(Diffusers(path=str(folder)), Process(), SIDE, tmp_path / "teacher")
    assert tensor in one_line(error) and str(folder / part) in str(error.value)
    assert not (tmp_path / "teacher").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a whole safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (None, "not a whole safetensors file"),
    ],
)
def test_a_file_that_holds_no_weights_is_named_before_any_job(
    content: bytes | None, words: str, pipeline: Any, tmp_path: Path, one_line: Any
) -> None:
    folder = spelled(pipeline, tmp_path / "pipeline", None, False)
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000] if content is None else content)
    with pytest.raises(UserError) as error:
        diffusers.locate(Diffusers(path=str(folder)))
    assert words in one_line(error) and str(path) in str(error.value)


def test_a_broken_vae_of_ones_own_is_named_before_any_job(pipeline: Any, tmp_path: Path, one_line: Any) -> None:
    folder = spelled(pipeline, tmp_path / "pipeline", None, False)
    shutil.copytree(folder / "vae", tmp_path / "vae")
    path = tmp_path / "vae/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError) as error:
        diffusers.locate(Diffusers(path=str(folder), vae_path=str(tmp_path / "vae")))
    assert "not a whole safetensors file" in one_line(error) and str(path) in str(error.value)


def test_half_a_tokenizer_is_named(pipeline: Any, tmp_path: Path, one_line: Any) -> None:
    folder = spelled(pipeline, tmp_path / "pipeline", None, False)
    for name in ("tokenizer.json", "merges.txt"):
        (folder / "tokenizer" / name).unlink(missing_ok=True)
    (folder / "tokenizer/vocab.json").write_text("{}")
    with pytest.raises(UserError) as error:
        diffusers.locate(Diffusers(path=str(folder)))
    assert "vocab.json with merges.txt" in one_line(error)
    folder = spelled(pipeline, tmp_path / "other", None, False)
    (folder / "tokenizer_2/tokenizer_config.json").unlink()
    with pytest.raises(UserError) as error:
        diffusers.locate(Diffusers(path=str(folder)))
    assert "model_max_length" in one_line(error) and "tokenizer_2" in str(error.value)


def test_parts_of_two_variants_are_taken_as_diffusers_takes_them(pipeline: Any, tmp_path: Path) -> None:
    folder = spelled(pipeline, tmp_path / "pipeline", "fp16", False)
    (folder / "vae/diffusion_pytorch_model.fp16.safetensors").rename(folder / "vae/diffusion_pytorch_model.safetensors")
    found = diffusers.locate(Diffusers(path=str(folder), variant="fp16"))
    assert {"unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.safetensors"} <= {
        name for _, name, _ in found.files
    }


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("scheduler/scheduler_config.json", "[]"),
        ("scheduler/scheduler_config.json", "{broken"),
        ("unet/config.json", '{"addition_embed_type": "text_time", "addition_time_embed_dim": null}'),
        ("model_index.json", '"text"'),
        ("text_encoder_2/config.json", '{"hidden_size": "wide"}'),
    ],
)
def test_a_configuration_that_makes_no_sense_is_named(
    file: str, text: str, pipeline: Any, tmp_path: Path, one_line: Any
) -> None:
    folder = spelled(pipeline, tmp_path / "pipeline", None, False)
    (folder / file).write_text(text)
    with pytest.raises(UserError) as error:
        diffusers.locate(Diffusers(path=str(folder)))
    assert str(folder) in one_line(error) and "delete" not in str(error.value)


def test_pickled_weights_are_named(pipeline: Any, tmp_path: Path, one_line: Any) -> None:
    folder = spelled(pipeline, tmp_path / "pipeline", None, False)
    (folder / "unet/diffusion_pytorch_model.safetensors").rename(folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(UserError) as error:
        diffusers.locate(Diffusers(path=str(folder)))
    assert "diffusion_pytorch_model.bin is pickled" in one_line(error)


# (file, key, value, words): each changes what the network is told or what its output means.
FOREIGN = [
    ("unet/config.json", "in_channels", 9, "in_channels = 9"),
    ("unet/config.json", "out_channels", 8, "out_channels = 8"),
    ("unet/config.json", "_class_name", "UNet3DConditionModel", "UNet3DConditionModel"),
    ("unet/config.json", "layers_per_block", 3, "is not there"),
    ("unet/config.json", "time_cond_proj_dim", 256, "time_cond_proj_dim"),
    ("unet/config.json", "class_embed_type", "timestep", "class_embed_type"),
    ("unet/config.json", "encoder_hid_dim_type", "text_proj", "encoder_hid_dim_type"),
    ("unet/config.json", "addition_embed_type", "text", "addition_embed_type"),
    ("unet/config.json", "cross_attention_dim", 7, "cross_attention_dim"),
    ("unet/config.json", "projection_class_embeddings_input_dim", 7, "projection_class_embeddings_input_dim"),
    ("unet/config.json", "sample_size", 5, "data.resolution"),
    ("vae/config.json", "latents_mean", [0.1] * 4, "latents_mean"),
    ("vae/config.json", "shift_factor", 0.1, "shift_factor"),
    ("vae/config.json", "latent_channels", 16, "in_channels"),
    ("model_index.json", "_class_name", "StableDiffusionXLInpaintPipeline", "StableDiffusionXLInpaintPipeline"),
    ("model_index.json", "_class_name", "StableDiffusionXLControlNetPipeline", "ControlNet"),
    ("model_index.json", "force_zeros_for_empty_prompt", False, "force_zeros_for_empty_prompt"),
    ("model_index.json", "unet", ["diffusers", "UNet2DModel"], "UNet2DModel"),
    ("model_index.json", "requires_aesthetics_score", True, "requires_aesthetics_score"),
    ("scheduler/scheduler_config.json", "thresholding", True, "thresholding"),
    ("scheduler/scheduler_config.json", "timestep_type", "continuous", "timestep_type"),
    ("scheduler/scheduler_config.json", "clip_sample", True, "clip_sample"),
]


@pytest.mark.parametrize(("file", "key", "value", "words"), FOREIGN, ids=[f"{f[1]}={f[2]}"[:40] for f in FOREIGN])
def test_a_key_that_changes_numbers_is_refused(
    file: str, key: str, value: Any, words: str, pipeline: Any, tmp_path: Path, one_line: Any
) -> None:
    folder = spelled(pipeline, tmp_path / "pipeline", None, False)
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError) as error:
        diffusers.pin(Diffusers(path=str(folder)), Process(), SIDE, tmp_path / "teacher")
    assert words in one_line(error) and file in str(error.value)
    assert not (tmp_path / "teacher").exists()


def test_a_real_inpainting_unet_is_refused_before_any_job(pipeline: Any, tmp_path: Path, one_line: Any) -> None:
    from diffusers import UNet2DConditionModel

    from directcm.cli import preflight
    from directcm.config import Config, parse

    folder = spelled(pipeline, tmp_path / "pipeline", None, False)
    config = dict(pipeline.unet.config) | {"in_channels": 9}
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    settings = {"teacher": {"kind": "diffusers", "diffusers": {"path": str(folder)}}}
    with pytest.raises(UserError) as error:
        preflight.check(parse(Config, settings))
    assert "in_channels = 9" in one_line(error)
