"""The published extractors, each on small random weights through the code that the real ones take."""

from __future__ import annotations

import math
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from directcm import cli
from directcm.config import ClipTiny
from directcm.config.specs import EXTRACTORS
from directcm.errors import UserError
from directcm.evaluation.metrics import extractors
from directcm.evaluation.metrics import features as module
from directcm.evaluation.metrics.clip_tiny import make_extractor
from directcm.evaluation.metrics.extractors import (
    AestheticLaion,
    ClipVitL14,
    DinoSize,
    Dinov2,
    FeatureExtractor,
    InceptionClean,
    InceptionLegacyPytorch,
    build_extractor,
    build_extractors,
    interpolate_positions,
    legacy_inception,
)
from directcm.evaluation.metrics.features import features, features_collection
from directcm.evaluation.metrics.quality import QualityHead
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, open_artifact, open_collection, read_json
from directcm.runtime.progress import Progress
from directcm.runtime.weights import WEIGHTS

SMALL = DinoSize(hidden=32, layers=2, heads=4, patch=14, pretrained_grid=6, size=56)


def image(side: int = 40, width: int | None = None, key: int = 0) -> Image.Image:
    array = rng.generator(key, "image", side, width or side).integers(0, 256, size=(side, width or side, 3))
    return Image.fromarray(array.astype(np.uint8))


def tensor(*shape: int, key: str = "tensor", scale: float = 0.1) -> torch.Tensor:
    return torch.from_numpy(scale * rng.generator(0, key, *shape).standard_normal(shape).astype(np.float32))


# -- DINOv2


def hub_state(size: DinoSize = SMALL) -> dict[str, torch.Tensor]:
    d, p = size.hidden, size.patch
    state = {
        "cls_token": tensor(1, 1, d, key="cls"),
        "mask_token": tensor(1, d, key="mask"),
        "pos_embed": tensor(1, 1 + size.pretrained_grid**2, d, key="pos"),
        "patch_embed.proj.weight": tensor(d, 3, p, p, key="patch"),
        "patch_embed.proj.bias": tensor(d, key="patch bias"),
        "norm.weight": 1 + tensor(d, key="norm"),
        "norm.bias": tensor(d, key="norm bias"),
    }
    shapes = {
        "norm1.weight": (d,), "norm1.bias": (d,), "norm2.weight": (d,), "norm2.bias": (d,),
        "attn.qkv.weight": (3 * d, d), "attn.qkv.bias": (3 * d,), "attn.proj.weight": (d, d), "attn.proj.bias": (d,),
        "mlp.fc1.weight": (4 * d, d), "mlp.fc1.bias": (4 * d,), "mlp.fc2.weight": (d, 4 * d), "mlp.fc2.bias": (d,),
        "ls1.gamma": (d,), "ls2.gamma": (d,),
    }  # fmt: skip
    for i in range(size.layers):
        for key, shape in shapes.items():
            state[f"blocks.{i}.{key}"] = tensor(*shape, key=f"{i} {key}", scale=0.3)
    return state


def dino_by_hand(state: dict[str, torch.Tensor], x: torch.Tensor, size: DinoSize) -> torch.Tensor:
    """DINOv2's forward written out from its paper, on the hub's names."""
    f = nn.functional
    d = size.hidden
    grid = size.size // size.patch

    def norm(x, key):
        return f.layer_norm(x, (d,), state[f"{key}.weight"], state[f"{key}.bias"], eps=1e-6)

    tokens = f.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=size.patch)
    tokens = tokens.flatten(2).transpose(1, 2)
    tokens = torch.cat([state["cls_token"].expand(len(x), -1, -1), tokens], 1) + interpolate_positions(
        state["pos_embed"], grid
    )
    for i in range(size.layers):
        b = f"blocks.{i}"
        qkv = norm(tokens, f"{b}.norm1") @ state[f"{b}.attn.qkv.weight"].T + state[f"{b}.attn.qkv.bias"]
        q, k, v = qkv.reshape(len(x), -1, 3, size.heads, d // size.heads).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-1, -2) / math.sqrt(d // size.heads)).softmax(-1) @ v
        attention = attention.transpose(1, 2).reshape(len(x), -1, d)
        attention = attention @ state[f"{b}.attn.proj.weight"].T + state[f"{b}.attn.proj.bias"]
        tokens = tokens + state[f"{b}.ls1.gamma"] * attention
        hidden = f.gelu(norm(tokens, f"{b}.norm2") @ state[f"{b}.mlp.fc1.weight"].T + state[f"{b}.mlp.fc1.bias"])
        tokens = tokens + state[f"{b}.ls2.gamma"] * (
            hidden @ state[f"{b}.mlp.fc2.weight"].T + state[f"{b}.mlp.fc2.bias"]
        )
    return norm(tokens, "norm")[:, 0]


def test_dino_is_the_hubs_network():
    state = hub_state()
    dino = Dinov2("cpu", size=SMALL, state=state)
    images = [image(40, key=i) for i in range(3)]
    found = dino.extract(images, ["", "", ""])
    assert set(found) == {"image"} and found["image"].shape == (3, 32) and found["image"].dtype == np.float32
    expected = dino_by_hand(state, torch.stack([dino.prepare(one) for one in images]), SMALL)
    np.testing.assert_allclose(found["image"], expected.numpy(), rtol=1e-4, atol=1e-5)


def test_dino_preprocessing_squeezes_and_normalises():
    dino = Dinov2("cpu", size=SMALL, state=hub_state())
    wide = image(30, 90)
    expected = np.asarray(wide.resize((56, 56), Image.Resampling.BICUBIC)).astype(np.float64) / 255
    expected = (expected - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(dino.prepare(wide).permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_positions_are_interpolated_as_the_hub_does():
    positions = tensor(1, 1 + 37 * 37, 5)
    found = interpolate_positions(positions, 16)
    assert found.shape == (1, 257, 5)
    torch.testing.assert_close(found[:, 0], positions[:, 0])
    grid = positions[0, 1:].T.reshape(1, 5, 37, 37)
    direct = nn.functional.interpolate(grid, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic")
    torch.testing.assert_close(found[0, 1:], direct.flatten(2)[0].T)
    plain = nn.functional.interpolate(grid, size=(16, 16), mode="bicubic")
    assert (plain - direct).abs().max() > 1e-3
    assert interpolate_positions(positions, 37) is not None
    torch.testing.assert_close(interpolate_positions(positions, 37), positions)


def test_dino_full_size_positions_need_no_interpolation_at_run_time():
    from transformers import Dinov2Config, Dinov2Model

    assert DinoSize() == DinoSize(1024, 24, 16, 14, 37, 224)
    with torch.device("meta"):
        model = Dinov2Model(
            Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=224, patch_size=14)
        )
    assert model.embeddings.position_embeddings.shape[1] == 257


def test_dino_refuses_other_weights():
    state = hub_state()
    with pytest.raises(UserError, match=r"ls1\.gamma"):
        Dinov2("cpu", size=SMALL, state={k: v for k, v in state.items() if k != "blocks.1.ls1.gamma"})
    with pytest.raises(UserError, match="register_tokens"):
        Dinov2("cpu", size=SMALL, state={**state, "register_tokens": tensor(1, 4, 32)})


# -- CLIP


@pytest.fixture(scope="module")
def clip_state() -> dict[str, torch.Tensor]:
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vision = CLIPVisionCfg(layers=1, width=64, patch_size=16, image_size=32)
        text = CLIPTextCfg(context_length=77, vocab_size=49408, width=64, heads=1, layers=1)
        return CLIP(24, vision, text, quick_gelu=True).state_dict()


def test_clip_has_quick_gelu_and_a_plain_one_is_refused(clip_state):
    from open_clip.model import build_model_from_openai_state_dict
    from open_clip.transformer import QuickGELU

    clip = ClipVitL14("cpu", state=clip_state)
    blocks = [*clip.model.visual.transformer.resblocks, *clip.model.transformer.resblocks]
    assert len(blocks) == 2 and all(type(block.mlp.gelu) is QuickGELU for block in blocks)
    x = torch.tensor([-1.0, 0.5, 2.0])
    torch.testing.assert_close(blocks[0].mlp.gelu(x), x * torch.sigmoid(1.702 * x))
    plain = build_model_from_openai_state_dict(dict(clip_state), quick_gelu=False, cast_dtype=None)
    with pytest.raises(UserError, match="QuickGELU"):
        extractors.require_quick_gelu(plain)
    assert next(clip.model.parameters()).dtype == torch.float32


def test_clip_features(clip_state):
    clip = ClipVitL14("cpu", state=clip_state)
    images = [image(50, 70, key=i) for i in range(3)]
    texts = ["a red square", "", "long " * 200]
    found = clip.extract(images, texts)
    assert {k: v.shape for k, v in found.items()} == {"image": (3, 24), "text": (3, 24)}
    pixels = torch.stack([clip.transform(i) for i in images])
    assert pixels.shape == (3, 3, 32, 32)
    with torch.no_grad():
        np.testing.assert_allclose(found["image"], clip.model.encode_image(pixels).numpy(), atol=1e-5)
    assert not np.allclose(np.linalg.norm(found["image"], axis=1), 1, atol=1e-3)
    # Shortest side to 32 by bicubic, then the middle: checked against PIL.
    resized = images[0].resize((44, 32), Image.Resampling.BICUBIC).crop((6, 0, 38, 32))
    expected = (np.asarray(resized) / 255 - np.array(clip.mean)) / np.array(clip.std)
    np.testing.assert_allclose(pixels[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)
    tokens = clip.tokenizer(texts)
    assert tokens.shape == (3, 77) and tokens[1, 0] == 49406 and tokens[2, -1] == 49407


def archive(state: dict[str, torch.Tensor]) -> torch.jit.ScriptModule:
    """A TorchScript module of bare parameters under OpenAI's names, float16, with the three extra entries of theirs."""
    root = nn.Module()
    for key, value in state.items():
        *path, leaf = key.split(".")
        at = root
        for part in path:
            if not hasattr(at, part):
                at.add_module(part, nn.Module())
            at = getattr(at, part)
        at.register_parameter(leaf, nn.Parameter(value.half(), requires_grad=False))
    for name in ("input_resolution", "context_length", "vocab_size"):
        root.register_buffer(name, torch.tensor(1))
    return torch.jit.script(root)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_clip_loads_an_openai_archive_from_a_path(clip_state, tmp_path, monkeypatch):
    torch.jit.save(archive(clip_state), str(tmp_path / "ViT-L-14.pt"))
    monkeypatch.setattr(extractors, "weights_file", lambda name: tmp_path / name)
    from_path = ClipVitL14("cpu")
    assert {p.dtype for p in from_path.model.parameters()} == {torch.float32}
    given = ClipVitL14("cpu", state={k: v.half().float() for k, v in clip_state.items()})
    first, second = (c.extract([image()], ["a cat"]) for c in (from_path, given))
    for key in ("image", "text"):
        np.testing.assert_allclose(first[key], second[key], atol=1e-5)


def test_aesthetic_is_the_head_on_the_normalised_embedding(clip_state):
    head = QualityHead(24)
    aesthetic = AestheticLaion("cpu", state=clip_state, head_state=head.state_dict())
    images = [image(40, key=i) for i in range(3)]
    found = aesthetic.extract(images, ["", "", ""])
    assert set(found) == {"score"} and found["score"].shape == (3,)
    embedding = torch.from_numpy(ClipVitL14("cpu", state=clip_state).extract(images, ["", "", ""])["image"])
    with torch.no_grad():
        expected = head.eval().layers(embedding / embedding.norm(dim=1, keepdim=True))[:, 0]
    np.testing.assert_allclose(found["score"], expected.numpy(), atol=1e-5)


# -- Inception


class SmallInception(nn.Module):
    """Called as NVIDIA's TorchScript is: `layers` maps (b, 3, 299, 299) to 2,048 features."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 2048))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_inception_clean(tmp_path):
    small = SmallInception()
    torch.jit.save(torch.jit.script(small), str(tmp_path / "inception-2015-12-05.pt"))
    clean = InceptionClean("cpu", given=tmp_path)
    images = [image(40, key=i) for i in range(3)]
    found = clean.extract(images, ["", "", ""])
    assert found["image"].shape == (3, 2048)
    # PIL's bicubic on each channel as floats, no rounding; then (x − 128)/128
    pixels = []
    for i in images:
        channels = [
            Image.fromarray(np.asarray(i)[:, :, c].astype(np.float32)).resize((299, 299), Image.Resampling.BICUBIC)
            for c in range(3)
        ]
        pixels.append(np.stack([np.asarray(c).clip(0, 255) for c in channels]))
    with torch.no_grad():
        expected = small.layers((torch.from_numpy(np.stack(pixels)) - 128) / 128)
    np.testing.assert_allclose(found["image"], expected.numpy(), atol=1e-5)


def test_inception_writes_and_downloads_nothing(tmp_path, monkeypatch):
    import urllib.request

    def refuse(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setenv("DIRECTCM_WEIGHTS", str(tmp_path))
    placed = [name for name, spec in EXTRACTORS.items() if any(not WEIGHTS[file].package for file in spec.weights)]
    assert len(placed) == 6
    for name in placed:
        with pytest.raises(UserError, match="missing weights"):
            build_extractor(name, device="cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_inception_legacy(monkeypatch):
    from cleanfid import inception_pytorch

    fetch = inception_pytorch.load_state_dict_from_url
    # A FID Inception's own random weights, caught on their way into it
    caught = {}

    def catch(self, state, *args, **kwargs):
        if not caught:
            caught.update(self.state_dict())

    with monkeypatch.context() as patch, torch.random.fork_rng(devices=[]):
        import torchvision

        torch.manual_seed(0)
        patch.setattr(torchvision.models.Inception3, "load_state_dict", catch)
        legacy_inception({})
    assert inception_pytorch.load_state_dict_from_url is fetch
    assert caught["fc.weight"].shape == (1008, 2048)
    legacy = InceptionLegacyPytorch("cpu", given=caught)
    images = [image(40, key=i) for i in range(2)]
    found = legacy.extract(images, ["", ""])["image"]
    assert found.shape == (2, 2048) and np.isfinite(found).all()
    x = torch.from_numpy(np.stack([np.asarray(i) for i in images])).permute(0, 3, 1, 2).float()
    resized = nn.functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False).clamp(0, 255)
    with torch.no_grad():
        expected = legacy.model(resized / 255)[0][:, :, 0, 0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


# -- All


def test_fingerprints_tell_what_matters(clip_state):
    one = Dinov2("cpu", size=SMALL, state=hub_state())
    assert one.fingerprint == Dinov2("cpu", size=SMALL, state=hub_state()).fingerprint
    assert len(one.fingerprint) == 64
    other = hub_state()
    other["norm.bias"] = other["norm.bias"] + 1
    assert Dinov2("cpu", size=SMALL, state=other).fingerprint != one.fingerprint
    clip = ClipVitL14("cpu", state=clip_state)
    before = clip.fingerprint
    clip.version = "2"
    assert clip.fingerprint != before


def test_a_batch_size_changes_nothing(clip_state):
    images, texts = [image(40, key=i) for i in range(5)], [f"text {i}" for i in range(5)]
    clip = ClipVitL14("cpu", state=clip_state)
    single = [clip.extract([shown], [text]) for shown, text in zip(images, texts, strict=True)]
    for key, found in clip.extract(images, texts).items():
        np.testing.assert_allclose(np.concatenate([one[key] for one in single]), found, atol=1e-5)


def test_registry(digit_data):
    for name, spec in EXTRACTORS.items():
        assert getattr(import_module(f"directcm.{spec.module}"), spec.made_by).name == name
    assert [name for name, spec in EXTRACTORS.items() if spec.trained] == ["clip_tiny"]
    assert [name for name, spec in EXTRACTORS.items() if not spec.weights] == ["clip_tiny", "pixels16"]
    with pytest.raises(UserError, match="unknown name"):
        build_extractor("vgg")
    with pytest.raises(UserError, match="folder is missing"):
        build_extractor("clip_tiny")
    with pytest.raises(UserError, match="is not trained here"):
        build_extractor("clip_vitl14", digit_data)
    with pytest.raises(ValueError, match="equal numbers"):
        Dinov2("cpu", size=SMALL, state=hub_state()).extract([image()], [])


# -- One pass over the images for several


NAMES = ("clip_tiny", "inception_clean", "dinov2_vitl14", "clip_vitl14", "aesthetic_laion")


@pytest.fixture(scope="module")
def several(tmp_path_factory, digit_data, clip_state) -> SimpleNamespace:
    """A trained clip_tiny, and the files of a weights cache in which the published networks are small and random."""
    folder = tmp_path_factory.mktemp("several")
    make_extractor(
        "clip_tiny", digit_data, ClipTiny(width=16, layers=1, patch=4, steps=20, batch_size=32), 0, folder / "x"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        torch.jit.save(torch.jit.script(SmallInception()), str(folder / "inception-2015-12-05.pt"))
        torch.save(QualityHead(24).state_dict(), folder / "sac+logos+ava1-l14-linearMSE.pth")
    torch.jit.save(archive(clip_state), str(folder / "ViT-L-14.pt"))
    torch.save(hub_state(), folder / "dinov2_vitl14_pretrain.pth")
    return SimpleNamespace(folder=folder, trained=open_artifact(folder / "x", "extractor"))


class SmallDino(Dinov2):
    """A DINOv2 from the cache's file, of a small size."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(device, size=SMALL)


@pytest.fixture
def cached(several, monkeypatch) -> list[str]:
    """The cache of `several` in the real one's place; which files were asked for."""
    asked: list[str] = []

    def file(name: str) -> Path:
        asked.append(name)
        return several.folder / name

    monkeypatch.setattr(extractors, "weights_file", file)
    monkeypatch.setattr(extractors, "Dinov2", SmallDino)
    return asked


def made(folder: Path) -> dict[str, bytes]:
    """Every file of an artefact or a collection but what says when, where and how fast it was made."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "provenance.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def counting(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """How often each image is decoded, and where each progress ends."""
    seen = SimpleNamespace(images=Counter(), progress=[])
    decode = module.open_image

    def opened(artifact: Artifact, name: str) -> Image.Image:
        seen.images[str(artifact.folder / name)] += 1
        return decode(artifact, name)

    class Seen(Progress):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            seen.progress.append(self)

    monkeypatch.setattr(module, "open_image", opened)
    monkeypatch.setattr(module, "Progress", Seen)
    return seen


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("workers", [1, 3])
def test_one_pass_gives_the_bytes_of_one_extractor_at_a_time(
    workers, several, cached, digit_data, digit_noise, make_samples, tmp_path, monkeypatch
):
    """Of the data, of a set in two shards, and of a run's collection of three sets; five extractors, two of them on one network."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: workers)
    shards = make_samples("teacher", 2, 10.0, 2)
    sets = {f"step~{i},sampling_steps~1": make_samples(f"set{i}", i, 20.0, step=i, steps=1)[0] for i in (1, 2, 3)}

    def run(built: Sequence[FeatureExtractor], where: Callable[[str, str], Path]) -> None:
        outs = {of: [where(one.name, of) for one in built] for of in ("data", "teacher", "students")}
        features(built, None, digit_data, digit_noise, 7, outs["data"])
        features(built, shards, digit_data, digit_noise, 16, outs["teacher"])
        features_collection(built, sets, digit_data, digit_noise, 16, outs["students"])

    for name in NAMES:
        folders = [several.trained] if name == "clip_tiny" else []
        run([build_extractor(name, *folders)], lambda name, of: tmp_path / "alone" / name / of)
    cached.clear()
    together = build_extractors(NAMES, [several.trained])
    # CLIP's weights are read once, and its network is there once.
    assert sorted(cached) == sorted({file for name in NAMES for file in EXTRACTORS[name].weights})
    assert together[4].model is together[3].model and together[4].shares is together[3]
    towers = []
    encode = together[3].model.encode_image
    monkeypatch.setattr(together[3].model, "encode_image", lambda images: towers.append(len(images)) or encode(images))
    seen = counting(monkeypatch)
    run(together, lambda name, of: tmp_path / "together" / name / of)

    rows = 60
    assert set(seen.images.values()) == {1} and len(seen.images) == rows * (1 + 1 + 3)
    # One progress a pass, which counts each image once.
    assert [(p.name, p.unit, p.done, p.total) for p in seen.progress] == [
        ("features", "image", n, n) for n in (rows, rows, 3 * rows)
    ]
    # The image tower runs once for both that need it.
    assert sum(towers) == rows * (1 + 1 + 3)
    alone, one_pass = made(tmp_path / "alone"), made(tmp_path / "together")
    assert alone == one_pass
    # Data, teacher, three sets: features, rows, checksums and manifest of each; checksums and manifest of the collection.
    assert len(one_pass) == len(NAMES) * ((1 + 1 + 3) * 4 + 2)
    for name in NAMES:
        whole = open_artifact(tmp_path / "together" / name / "teacher", "features").verify()
        arrays = whole.arrays("features.safetensors")
        assert set(arrays) == {*EXTRACTORS[name].arrays} and all(len(array) == rows for array in arrays.values())
        assert all(array.std() > 0 for array in arrays.values())
        about = read_json(whole.folder / "provenance.json")
        assert about["forward_seconds"] > 0 and about["waiting_seconds"] > 0 and about["threads"] == workers
    waits = {read_json(p)["waiting_seconds"] for p in (tmp_path / "together").glob("*/teacher/provenance.json")}
    assert len(waits) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_verb_writes_one_artefact_for_each_extractor(several, cached, digit_data, digit_noise, tmp_path, capsys):
    names = ["aesthetic_laion", "clip_tiny", "dinov2_vitl14"]
    flags = ["features", "--name", *names, "--data", str(digit_data.folder), "--noise", str(digit_noise.folder)]
    trained = ["--extractor", str(several.trained.folder)]
    outs = [str(tmp_path / name / "data" / "manifest.json") for name in names]
    assert cli.main([*flags, *trained, "--batch-size", "16", "--out", *outs]) == 0
    for name, out in zip(names, outs, strict=True):
        found = open_artifact(out, "features").verify()
        assert found.settings["extractor"] == name and found.settings["of"] == "data"
        assert ("extractor" in found.manifest["inputs"]) == (name == "clip_tiny")
    capsys.readouterr()

    def refused(words: str, *arguments: str) -> None:
        assert cli.main([*arguments]) == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1

    refused("--out names 2 folders for 3 extractors", *flags, *trained, "--out", *outs[:2])
    refused("clip_tiny: the trained extractor's folder is missing", *flags, "--out", *outs)
    refused("which was given twice", *flags, *trained, trained[1], "--out", *outs)
    twice = ["clip_tiny", "clip_tiny"]
    refused("has one twice", *flags[:2], *twice, *flags[5:], *trained, "--out", *outs[:2])
    refused("which is not among dinov2_vitl14", *flags[:2], names[2], *flags[5:], *trained, "--out", outs[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("of", ["data", "collection"])
def test_killed_between_two_artefacts(of, several, cached, digit_data, digit_noise, make_samples, tmp_path):
    """Killed with -9 while the second of three is written: the first is whole, the others are not there; a second run makes all."""
    names = ("clip_tiny", "dinov2_vitl14", "clip_vitl14")
    built = build_extractors(names, [several.trained])
    sets = {f"set{i}": make_samples(f"kill{i}", i, 20.0)[0] for i in (1, 2)}

    def run(root: Path) -> None:
        outs = [root / name for name in names]
        if of == "data":
            features(built, None, digit_data, digit_noise, 16, outs)
        else:
            features_collection(built, sets, digit_data, digit_noise, 16, outs)

    run(tmp_path / "undisturbed")
    # There already, from other samples.
    shutil.copytree(tmp_path / "undisturbed", tmp_path / "out")
    if of == "collection":
        sets["set2"] = make_samples("kill3", 3, 30.0)[0]
        shutil.rmtree(tmp_path / "undisturbed")
        run(tmp_path / "undisturbed")
    else:
        for name in names:
            (tmp_path / "out" / name / "manifest.json").unlink()
    child = os.fork()
    if not child:
        # A fork has none of its parent's threads to wait for.
        torch.set_num_threads(1)
        save = module.save_tensors

        def killed(path: Path, tensors: dict[str, torch.Tensor]) -> None:
            save(path, tensors)
            if "dinov2" in str(path) and ("set2" in str(path) or of == "data"):
                os.kill(os.getpid(), signal.SIGKILL)

        module.save_tensors = killed
        run(tmp_path / "out")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if of == "data":
        open_artifact(tmp_path / "out" / names[0], "features").verify()
        assert not any((tmp_path / "out" / name / "manifest.json").exists() for name in names[1:])
    else:
        # No collection says that old and new parts belong together; each part is whole.
        assert not any((tmp_path / "out" / name / "manifest.json").exists() for name in names)
        for name in names:
            for part in sets:
                open_artifact(tmp_path / "out" / name / part, "features").verify()
    run(tmp_path / "out")
    assert made(tmp_path / "out") == made(tmp_path / "undisturbed")
    if of == "collection":
        assert all(tuple(open_collection(tmp_path / "out" / name, "features")) == tuple(sets) for name in names)


def test_a_fingerprint_is_the_same_on_a_shared_network(clip_state):
    head = QualityHead(24).state_dict()
    alone = AestheticLaion("cpu", state=clip_state, head_state=head)
    clip = ClipVitL14("cpu", state=clip_state)
    shared = AestheticLaion("cpu", head_state=head, network=clip)
    assert shared.fingerprint == alone.fingerprint
    # The head is no part of what CLIP's own features depend on.
    assert clip.fingerprint == ClipVitL14("cpu", state=clip_state).fingerprint
    images = clip.batch([clip.prepare(image(40, key=i)) for i in range(3)])
    clip.of_prepared(images, ["a", "b", "c"])
    other = clip.batch([clip.prepare(image(40, key=i)) for i in range(3, 6)])
    for some, keys in ((images, range(3)), (other, range(3, 6))):
        expected = alone.extract([image(40, key=i) for i in keys], ["", "", ""])
        np.testing.assert_array_equal(shared.of_prepared(some, ["", "", ""])["score"], expected["score"])
