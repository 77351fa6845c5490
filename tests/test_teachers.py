"""Teachers: the micro SDXL as an SDXL pipeline, its tokenizer, its resumption; pinning of existing pipelines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from directcm.config import Diffusers, MicroSdxl, MicroText, Process
from directcm.diffusion.processes import VariancePreserving
from directcm.diffusion.solvers import make_solver
from directcm.diffusion.teachers import Conditioning, diffusers, latent_diffusion, load, micro_sdxl
from directcm.diffusion.teachers.codec import to_images, to_tensor
from directcm.diffusion.teachers.latent_diffusion import (
    LatentDiffusion,
    TextEncoders,
    load_vae,
)
from directcm.errors import UserError
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, open_artifact, sha256

TEXTS = ["a handwritten digit one", "a handwritten digit seven"]


@pytest.fixture(scope="module")
def pipeline(tiny: Any) -> Any:
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline.from_pretrained(tiny.teacher.folder, local_files_only=True)


@pytest.fixture
def saved(tiny: Any, tmp_path: Path) -> Path:
    """A pipeline folder with the file layout that SDXL's repository has."""
    return saved_pipeline(tiny, tmp_path / "pipeline")


def saved_pipeline(tiny: Any, folder: Path) -> Path:
    shutil.copytree(tiny.teacher.folder, folder)
    for name in ("teacher.json", "manifest.json", "checksums.csv", "provenance.json", "curve.csv", "vae_curve.csv"):
        (folder / name).unlink()
    for part in ("tokenizer", "tokenizer_2"):
        model = json.loads((folder / part / "tokenizer.json").read_text())["model"]
        (folder / part / "vocab.json").write_text(json.dumps(model["vocab"]))
        (folder / part / "merges.txt").write_text("\n".join(" ".join(m) for m in model["merges"]))
    return folder


def inputs(rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return rng.normal(0, "x", range(rows), (4, 8, 8)), torch.tensor([1000.0, 400.0, 20.0])[:rows]


def test_prediction_is_the_stock_unet(tiny: Any, pipeline: Any) -> None:
    teacher = load(tiny.teacher)
    assert teacher.shape == (4, 8, 8)
    x, t = inputs()
    cond = TextEncoders.load(tiny.teacher)(TEXTS + TEXTS[:1])
    ids = torch.tensor([[16.0, 16, 0, 0, 16, 16]]).expand(3, -1)
    with torch.no_grad():
        theirs = pipeline.unet(
            x,
            t - 1,
            encoder_hidden_states=cond.tensors["prompt_embeds"],
            added_cond_kwargs={"text_embeds": cond.tensors["pooled"], "time_ids": ids},
        ).sample
        ours = teacher.predict(x, t, cond, 1.0)
    torch.testing.assert_close(ours.eps, theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.x0, teacher.process.clean(x, theirs, t), rtol=1e-4, atol=1e-4)
    assert not any(p.requires_grad for p in teacher.network.parameters()) and not teacher.network.training


def test_prompts_are_encoded_as_the_pipeline_does(tiny: Any, pipeline: Any) -> None:
    ours = TextEncoders.load(tiny.teacher)(TEXTS)
    embeds, none, pooled, pooled_none = pipeline.encode_prompt(TEXTS, device="cpu", do_classifier_free_guidance=True)
    torch.testing.assert_close(ours.tensors["prompt_embeds"], embeds, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.tensors["pooled"], pooled, rtol=0, atol=1e-6)
    # ∅ is zeros, and so is the pipeline's.
    unconditional = load(tiny.teacher).unconditional(ours)
    assert torch.equal(unconditional.tensors["prompt_embeds"], none) and not none.any()
    assert torch.equal(unconditional.tensors["pooled"], pooled_none) and not pooled_none.any()


def test_guided_sampling_is_the_stock_pipelines(tiny: Any, pipeline: Any) -> None:
    from directcm.diffusion.solvers import solve

    pipeline.set_progress_bar_config(disable=True)
    x = rng.normal(0, "x", range(2), (4, 8, 8))
    theirs = pipeline(
        TEXTS,
        height=16,
        width=16,
        latents=x.clone(),
        num_inference_steps=5,
        guidance_scale=3.0,
        output_type="latent",
        original_size=(16, 16),
        target_size=(16, 16),
    ).images
    teacher = load(tiny.teacher)
    ours, *_ = solve(teacher, make_solver("ddim"), x, torch.zeros(2), 5, TextEncoders.load(tiny.teacher)(TEXTS), 3.0, 2)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_artefact(tiny: Any) -> None:
    counts = tiny.teacher.verify().counts
    unet = load(tiny.teacher).network
    assert counts["unet_parameters"] == sum(p.numel() for p in unet.parameters())
    assert 0 < counts["vae_held_out_mse"] < 1
    assert len(tiny.teacher.csv("curve.csv")) == 6 and len(tiny.teacher.csv("vae_curve.csv")) == 6
    assert tiny.teacher.manifest["inputs"] == {"data": tiny.data.fingerprint}
    scale = load_vae(tiny.teacher).config.scaling_factor
    mean = latent_diffusion.Latents(tiny.teacher).encode(images(tiny, "train"), None)
    assert float(mean.std()) == pytest.approx(1.0, rel=1e-4) and scale > 0


def images(tiny: Any, part: str) -> torch.Tensor:
    from PIL import Image

    return to_tensor(
        [Image.open(tiny.data.file(r["file_name"])) for r in tiny.data.csv("images.csv") if r["split"] == part]
    )


def test_held_out_error_is_on_held_out_images(tiny: Any) -> None:
    vae, pixels = load_vae(tiny.teacher), images(tiny, "held_out")
    with torch.no_grad():
        out = vae.decode(vae.encode(pixels).latent_dist.mean).sample
    assert float(((out - pixels) ** 2).mean()) == pytest.approx(tiny.teacher.counts["vae_held_out_mse"], rel=1e-4)


def make_teacher(tiny: Any, folder: Path) -> Artifact:
    micro_sdxl.make(tiny.micro, tiny.process, tiny.data, tiny.seed, folder / "scratch", folder / "teacher")
    return open_artifact(folder / "teacher", "teacher")


def test_training_twice_gives_the_same_bytes(tiny: Any, tmp_path: Path) -> None:
    assert make_teacher(tiny, tmp_path).fingerprint == tiny.teacher.fingerprint


def test_a_killed_teacher_resumes_to_the_same_bytes(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = micro_sdxl.Job

    def often(*args: Any, **options: Any) -> Any:
        return whole(*args, **{**options, "checkpoint_every": 2})

    monkeypatch.setattr(micro_sdxl, "Job", often)
    make_teacher(tiny, tmp_path)
    shutil.rmtree(tmp_path / "teacher")
    assert [p.name for p in (tmp_path / "scratch" / "unet").glob("checkpoint-*")]
    assert make_teacher(tiny, tmp_path).fingerprint == tiny.teacher.fingerprint


def test_the_losss_weights_are_those_of_diffusers_scripts() -> None:
    """min(SNR, γ)/SNR with the SNR of diffusers.training_utils, whose times are ours less one; 1 where the SNR is below γ."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    t = torch.tensor([1, 100, 400, 700, 1000])
    snr = compute_snr(scheduler, t - 1)
    wanted = torch.stack([snr, torch.full_like(snr, 5.0)]).amin(0) / snr
    weights = micro_sdxl.min_snr(VariancePreserving.scaled_linear(), t, 5.0)
    torch.testing.assert_close(weights.float(), wanted, rtol=1e-4, atol=0)
    assert float(weights[0]) < 0.01 and float(weights[-1]) == 1


def test_the_times_of_a_batch_are_spread(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in each of as many parts as there are rows; of all processes together, so that each has its own."""
    seen: list[torch.Tensor] = []
    real = LatentDiffusion.noise

    def noise(self: Any, x: Any, t: torch.Tensor, cond: Any) -> Any:
        seen.append(t)
        return real(self, x, t, cond)

    monkeypatch.setattr(LatentDiffusion, "noise", noise)
    settings = tiny.micro.model_copy(update={"unet": tiny.micro.unet.model_copy(update={"steps": 2})})
    micro_sdxl.make(settings, tiny.process, tiny.data, 24, tmp_path / "scratch", tmp_path / "teacher")
    assert len(seen) == 2
    for t in seen:
        assert [int((value - 1) * 8 // 1000) for value in t] == list(range(8))
    assert not torch.equal(seen[0], seen[1])


def test_one_based_time_reaches_the_unet(tiny: Any) -> None:
    unet = load(tiny.teacher).network
    told: list[float] = []
    handle = unet.register_forward_pre_hook(lambda module, args: told.extend(args[1].tolist()))
    cond = Conditioning({"prompt_embeds": torch.zeros(2, 8, 48), "pooled": torch.zeros(2, 32)})
    for convention in ("zero_based", "one_based"):
        process = VariancePreserving.scaled_linear(time_input=convention)
        LatentDiffusion(unet, process, 16).predict(inputs(2)[0], torch.tensor([1000.0, 20.0]), cond, 1.0)
    handle.remove()
    assert told == [999, 19, 1000, 20]


def test_heun_tells_the_unet_the_end(tiny: Any) -> None:
    """Under `one_based` 0, as the released code does, and no other number with it: α, σ and β stay those of time 1."""
    unet = load(tiny.teacher).network
    told: list[float] = []
    handle = unet.register_forward_pre_hook(lambda module, args: told.extend(args[1].tolist()))
    cond = Conditioning({"prompt_embeds": torch.zeros(1, 8, 48), "pooled": torch.zeros(1, 32)})
    x, t, s = inputs(1)[0], torch.tensor([20.0]), torch.zeros(1)
    teacher = LatentDiffusion(unet, VariancePreserving.scaled_linear(time_input="one_based"), 16)
    step = make_solver("heun").step(teacher, x, t, s, cond, 1.0)
    assert told == [20, 0] and teacher.rows_evaluated == 2
    handle.remove()
    process = teacher.process
    first = process.velocity(x, teacher.predict(x, t, cond).eps, t)
    guess = x - 20 * first
    at_0 = LatentDiffusion(unet, VariancePreserving.scaled_linear(), 16).predict(guess, s + 1, cond).eps
    torch.testing.assert_close(step, x - 10 * (first + process.velocity(guess, at_0, s + 1)))


def test_v_prediction(tiny: Any) -> None:
    teacher = load(tiny.teacher)
    x, t = inputs()
    cond = TextEncoders.load(tiny.teacher)(TEXTS + TEXTS[:1])
    v = teacher.predict(x, t, cond, 1.0).eps
    other = LatentDiffusion(teacher.network, teacher.process, 16, "v_prediction").predict(x, t, cond, 1.0)
    alpha, sigma = (f(t).float().reshape(-1, 1, 1, 1) for f in (teacher.process.alpha, teacher.process.sigma))
    torch.testing.assert_close(other.eps, alpha * v + sigma * x, rtol=1e-5, atol=1e-5)
    # v = α ε − σ x₀ (2202.00512).
    torch.testing.assert_close(alpha * other.eps - sigma * other.x0, v, rtol=1e-3, atol=1e-3)


def test_precision(tiny: Any) -> None:
    teacher = load(tiny.teacher, precision="bf16")
    assert teacher.network.dtype == torch.bfloat16
    cond = TextEncoders.load(tiny.teacher)(TEXTS)
    x, t = inputs(2)
    assert teacher.predict(x, t, cond, 3.0).eps.dtype == torch.float32


def test_pixels_survive_the_round_trip() -> None:
    from PIL import Image

    grey = Image.fromarray(torch.arange(256, dtype=torch.uint8).reshape(16, 16).numpy()).convert("RGB")
    x = to_tensor([grey])
    assert x.shape == (1, 3, 16, 16) and float(x.min()) == -1.0 and float(x.max()) == 1.0
    assert to_images(x)[0].tobytes() == grey.tobytes()
    assert to_images(torch.tensor([-9.0, 9.0, 0.0]).reshape(1, 3, 1, 1))[0].getpixel((0, 0)) == (0, 255, 128)


def test_encode_and_decode_scale(tiny: Any) -> None:
    codec = latent_diffusion.Latents(tiny.teacher)
    vae = codec.vae
    x = images(tiny, "train")[:2]
    with torch.no_grad():
        posterior = vae.encode(x).latent_dist
        expected = to_images(vae.decode(posterior.mean).sample)
    noise = rng.normal(0, "n", range(2), (4, 8, 8))
    mode, draw = codec.encode(x, None), codec.encode(x, lambda shape: noise)
    torch.testing.assert_close(mode, posterior.mean * vae.config.scaling_factor)
    torch.testing.assert_close(draw - mode, posterior.std * noise * vae.config.scaling_factor, rtol=1e-3, atol=1e-5)
    for ours, theirs in zip(to_images(codec.decode(mode)), expected, strict=True):
        difference = (to_tensor([ours]) - to_tensor([theirs])).abs().max()
        assert float(difference) <= 1.01 / 127.5


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    texts = [f"a handwritten digit {w}" for w in ("zero", "one", "two", "seven")]
    made = micro_sdxl.make_tokenizer(texts, MicroText(length=16))
    folder = tmp_path_factory.mktemp("saved")
    made.save_pretrained(folder)
    return type(made).from_pretrained(folder, local_files_only=True)


@settings(deadline=None, max_examples=150)
@given(text=st.text(max_size=30))
def test_any_text_is_tokenised_without_loss(tokenizer: Any, text: str) -> None:
    from tokenizers import decoders, normalizers

    # A caption that spells a mark means the mark, here as with SDXL's tokenizer.
    assume(micro_sdxl.BOS not in text and micro_sdxl.EOS not in text)
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids)
    assert micro_sdxl.EOS not in tokens
    # The tokens spell the text's bytes, but for case, Unicode composition and white space (Python's counts \x1c … \x1f too).
    spelled = decoders.ByteLevel().decode(["".join(tokens).replace("</w>", "")])
    plain = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()]).normalize_str(text)
    assert spelled == "".join(c for c in plain if not c.isspace() or "\x1c" <= c <= "\x1f")


def test_captions_and_length(tokenizer: Any) -> None:
    options = {"padding": "max_length", "truncation": True, "max_length": tokenizer.model_max_length}
    ids = {w: tokenizer(f"a handwritten digit {w}", **options).input_ids for w in ("one", "two", "seven", "nine")}
    assert len({tuple(v) for v in ids.values()}) == 4
    assert all(
        len(v) == 16 and v[0] == tokenizer.bos_token_id and v[-1] == tokenizer.eos_token_id for v in ids.values()
    )
    long = tokenizer("x" * 500, **options).input_ids
    assert len(long) == 16 and long[-1] == tokenizer.eos_token_id
    assert tokenizer("").input_ids == [tokenizer.bos_token_id, tokenizer.eos_token_id]


@pytest.mark.parametrize("vocabulary", [600, 1024])
def test_vocabulary_is_no_larger_than_asked_for(tmp_path: Path, vocabulary: int) -> None:
    texts = [f"{a}{b}{c} caption" for a in "abcdefgh" for b in "ijklmnop" for c in "qrstuvwx"]
    made = micro_sdxl.make_tokenizer(texts, MicroText(vocabulary=vocabulary))
    assert len(made) <= vocabulary
    assert made("abc").input_ids == made("ABC ").input_ids


def test_unet_has_one_resolution_or_three() -> None:
    for channels in ((16,), (16, 32, 32)):
        unet = micro_sdxl.make_unet(
            MicroSdxl.model_validate({"unet": {"channels": channels}, "text": {"width": 16}}), 8
        )
        cond = {"text_embeds": torch.zeros(1, 32), "time_ids": torch.zeros(1, 6)}
        out = unet(
            torch.zeros(1, 4, 8, 8), 5, encoder_hidden_states=torch.zeros(1, 3, 48), added_cond_kwargs=cond
        ).sample
        assert out.shape == (1, 4, 8, 8)


def test_a_vae_of_three_resolutions_gives_latents_of_a_quarter_of_the_side(tiny: Any, tmp_path: Path) -> None:
    """Each resolution after the first halves the side; the latents, the U-Net and the noise follow the VAE."""
    from directcm import datasets
    from directcm.config import Data, Encode, MicroVae
    from directcm.distill import encode, noise
    from directcm.distill.encode import Latents

    source = Data(kind="folder", path=tiny.data_settings.path, resolution=16)
    datasets.make(source, 24, tmp_path / "data")
    data = open_artifact(tmp_path / "data", "data")
    small = MicroSdxl.model_validate(
        {
            "vae": {"channels": [16, 16, 32], "steps": 3, "batch_size": 4},
            "text": {"width": 16, "layers": 2, "length": 8},
            "unet": {"channels": [16, 32], "steps": 2, "batch_size": 4},
        }
    )
    assert small.vae.factor == 4 and MicroVae().factor == 2
    micro_sdxl.make(small, Process(), data, 24, tmp_path / "s", tmp_path / "teacher")
    art = open_artifact(tmp_path / "teacher", "teacher").verify()
    codec, teacher = latent_diffusion.Latents(art), load(art)
    assert tuple(codec.vae.config.block_out_channels) == (16, 16, 32) and teacher.shape == (4, 4, 4)
    assert teacher.network.config.sample_size == 4
    x = images(tiny, "held_out")[:2]
    latents = codec.encode(x, None)
    assert latents.shape == (2, 4, 4, 4)
    assert [image.size for image in to_images(codec.decode(latents))] == [(16, 16)] * 2
    encode.make(Encode(), art, data, 24, "cpu", "no", tmp_path / "e", tmp_path / "latents")
    pool = Latents(open_artifact(tmp_path / "latents", "latents"))
    assert pool.shape == (4, 4, 4) and pool.latents(torch.arange(3)).shape == (3, 4, 4, 4)
    # The scale is that of these latents: unit variance over the training images' means.
    mean = codec.encode(images(tiny, "train"), None)
    assert float(mean.std()) == pytest.approx(1.0, rel=1e-4)
    noise.make(3, "evaluation", data, pool.artifact, 24, tmp_path / "noise")
    drawn = open_artifact(tmp_path / "noise", "noise").tensors("noise.safetensors")["noise"]
    assert drawn.shape == (3, 4, 4, 4)
    with torch.no_grad():
        eps = teacher.predict(drawn, torch.full((3,), 500.0), pool.conditioning(torch.arange(3)), 3.0).eps
    assert eps.shape == drawn.shape and bool(torch.isfinite(eps).all())


# Pinning


def pin(folder: Path, out: Path, **settings: Any) -> Artifact:
    diffusers.pin(Diffusers(path=str(folder), **settings), Process(), 16, out)
    return open_artifact(out, "teacher")


def test_a_pipeline_is_pinned_by_path(tiny: Any, saved: Path, tmp_path: Path) -> None:
    art = pin(saved, tmp_path / "teacher")
    files = {r["path"]: r["sha256"] for r in art.csv("files.csv")}
    assert {
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "model_index.json",
        "tokenizer/merges.txt",
    } <= set(files)
    assert all(digest == sha256(saved / name) for name, digest in files.items())
    assert latent_diffusion.Parts(art).pipeline == saved.resolve()
    x, t = inputs()
    cond = TextEncoders.load(art)(TEXTS + TEXTS[:1])
    with torch.no_grad():
        mine, theirs = load(art).predict(x, t, cond, 3.0), load(tiny.teacher).predict(x, t, cond, 3.0)
    assert torch.equal(mine.eps, theirs.eps)
    assert open_artifact(art.folder, "teacher").fingerprint == pin(saved, tmp_path / "again").fingerprint


def test_changed_weights_change_the_fingerprint(saved: Path, tmp_path: Path) -> None:
    before = pin(saved, tmp_path / "a").fingerprint
    weights = saved / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state[min(state)] = state[min(state)] + 1
    save_file(state, weights, {"format": "pt"})
    assert pin(saved, tmp_path / "b").fingerprint != before


def test_a_pinned_file_that_changes_later_is_refused(saved: Path, tmp_path: Path) -> None:
    art = pin(saved, tmp_path / "teacher")
    weights = saved / "unet" / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    state[min(state)] = state[min(state)] + 1
    save_file(state, weights, {"format": "pt"})
    with pytest.raises(UserError, match="unet"):
        load(art)


def test_another_vae_replaces_the_pipelines(saved: Path, tmp_path: Path) -> None:
    shutil.copytree(saved / "vae", tmp_path / "vae")
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    (tmp_path / "vae" / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.5}))
    art = pin(saved, tmp_path / "teacher", vae_path=str(tmp_path / "vae"))
    assert load_vae(art).config.scaling_factor == 0.5
    assert {r["part"] for r in art.csv("files.csv")} == {"pipeline", "vae"}


def test_a_pipeline_saved_by_this_transformers_is_whole(tiny: Any) -> None:
    found = diffusers.locate(Diffusers(path=str(tiny.teacher.folder)))
    assert (found.pipeline, found.vae) == (tiny.teacher.folder.resolve(), None)


@pytest.mark.parametrize(
    "name", ["model_index.json", "unet/config.json", "scheduler/scheduler_config.json", "text_encoder_2/config.json"]
)
def test_a_missing_file_is_named(saved: Path, tmp_path: Path, name: str, one_line: Any) -> None:
    (saved / name).unlink()
    with pytest.raises(UserError) as error:
        pin(saved, tmp_path / "teacher")
    assert str(saved / name) in one_line(error) and "missing" in str(error.value)
    assert not (tmp_path / "teacher").exists()


def test_missing_weights_variant_and_vae(saved: Path, tmp_path: Path, one_line: Any) -> None:
    for settings_, word in (
        ({"path": str(tmp_path / "nowhere")}, "nowhere"),
        ({"path": str(saved), "variant": "fp16"}, "fp16.safetensors"),
        ({"path": str(saved), "vae_path": str(tmp_path)}, "AutoencoderKL"),
    ):
        with pytest.raises(UserError) as error:
            diffusers.locate(Diffusers(**settings_))
        assert word in one_line(error)
    (saved / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no \*\.safetensors in .*vae"):
        diffusers.locate(Diffusers(path=str(saved)))


def test_another_kind_of_pipeline(saved: Path, one_line: Any) -> None:
    (saved / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(UserError) as error:
        diffusers.locate(Diffusers(path=str(saved)))
    assert "StableDiffusionPipeline" in one_line(error)


def test_a_hub_id_that_is_not_cached_says_how_to_place_it(one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        diffusers.locate(Diffusers(id="nobody/nothing", revision="a" * 40))
    text = one_line(error)
    assert "nobody/nothing" in text and "by hand" in text and "teacher.diffusers.path" in text and "a" * 40 in text


def test_a_vae_that_is_not_cached(saved: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        diffusers.locate(Diffusers(path=str(saved), vae_id="nobody/vae", vae_revision="b" * 40))
    assert "teacher.diffusers.vae_id" in one_line(error) and "teacher.diffusers.vae_path" in str(error.value)


def test_a_malformed_hub_id(one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        diffusers.locate(Diffusers(id="a/b/c", revision="a" * 40))
    assert "a/b/c" in one_line(error)


def test_a_teacher_of_other_timesteps(saved: Path, tmp_path: Path, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        diffusers.pin(Diffusers(path=str(saved)), Process(timesteps=500), 16, tmp_path / "teacher")
    assert "process.timesteps is 500" in one_line(error) and "1000" in str(error.value)


@pytest.mark.parametrize(("key", "value"), [("beta_schedule", "linear"), ("prediction_type", "sample")])
def test_an_unknown_schedule_is_refused(saved: Path, key: str, value: str, one_line: Any) -> None:
    path = saved / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError) as error:
        latent_diffusion.make_process(path, "zero_based")
    assert key in one_line(error) and value in str(error.value)


def test_schedule_is_read_from_the_pipeline(saved: Path) -> None:
    path = saved / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_train_timesteps": 100, "beta_end": 0.02}))
    process, kind = latent_diffusion.make_process(path, "one_based")
    assert process.start == 100 and float(process.betas[-1]) == pytest.approx(0.02) and kind == "epsilon"
    assert process.time_input == "one_based"


def test_time_0_is_answered_as_time_1(tiny: Any) -> None:
    """By an ε network told t − 1. (Heun asks at time 1 instead of 0, so that it holds for every kind of teacher.)"""
    teacher = load(tiny.teacher)
    x, _ = inputs(2)
    cond = TextEncoders.load(tiny.teacher)(TEXTS)
    at_0, at_1 = (teacher.predict(x, torch.full((2,), t), cond, 1.0).eps for t in (0.0, 1.0))
    torch.testing.assert_close(at_0, at_1, rtol=1e-5, atol=1e-5)


def test_what_only_says_how_diffusers_samples_is_accepted(saved: Path, tmp_path: Path) -> None:
    """SDXL's own scheduler and its likes, with the keys that public repositories carry."""
    path = saved / "scheduler/scheduler_config.json"
    own = json.loads(path.read_text())
    for name, more in (
        ("EulerDiscreteScheduler", {"interpolation_type": "linear", "use_karras_sigmas": False, "clip_sample": True}),
        ("EulerDiscreteScheduler", {"timestep_spacing": "leading", "steps_offset": 1, "timestep_type": "discrete"}),
        ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "algorithm_type": "dpmsolver++"}),
    ):
        path.write_text(json.dumps({**own, "_class_name": name, **more}))
        assert diffusers.locate(Diffusers(path=str(saved))).pipeline == saved.resolve()


def test_sdxls_own_configurations_are_accepted(saved: Path) -> None:
    """The keys and sizes of stabilityai/stable-diffusion-xl-base-1.0, as its files say them; no weights of that size are made."""
    files = {
        "unet/config.json": {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "cross_attention_dim": 2048,
            "projection_class_embeddings_input_dim": 2816,
            "in_channels": 4,
            "out_channels": 4,
            "sample_size": 128,
            "time_cond_proj_dim": None,
            "class_embed_type": None,
            "num_class_embeds": None,
            "encoder_hid_dim": None,
        },
        "vae/config.json": {
            "block_out_channels": [128, 256, 512, 512],
            "latent_channels": 4,
            "scaling_factor": 0.13025,
            "force_upcast": True,
        },
        "text_encoder/config.json": {"hidden_size": 768, "projection_dim": 768},
        "text_encoder_2/config.json": {"hidden_size": 1280, "projection_dim": 1280},
    }
    for name, keys in files.items():
        (saved / name).write_text(json.dumps(json.loads((saved / name).read_text()) | keys))
    assert diffusers.locate(Diffusers(path=str(saved)), 1024).vae is None
    with pytest.raises(UserError, match=r"sample_size = 128, latents of 1024 pixels, but data.resolution is 512"):
        diffusers.locate(Diffusers(path=str(saved)), 512)


def test_a_batch_that_does_not_fit_goes_through_the_vae_in_halves(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, one_line: Any
) -> None:
    """A card on which three images do not fit: seven go in parts, to the same pixels, and the next batch knows."""
    codec, latents = latent_diffusion.load_codec(tiny.teacher), rng.normal(0, "x", range(7), (4, 8, 8))
    want = codec.decode(latents)
    asked, whole, room = [], codec._pixels, [2]

    def pixels(some: torch.Tensor) -> torch.Tensor:
        asked.append(len(some))
        if len(some) > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(some)

    monkeypatch.setattr(codec, "_pixels", pixels)
    assert torch.allclose(codec.decode(latents), want, atol=1e-4)
    assert asked == [7, 4, 2, 2, 2, 1]
    asked.clear()
    codec.decode(latents[:3])
    assert asked == [2, 1]
    room[0] = 0
    with pytest.raises(UserError) as error:
        codec.decode(latents)
    assert "not one image fits" in one_line(error)
