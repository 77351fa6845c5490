"""Distances: their formulas, and LPIPS on random weights through the code that the published ones take."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from directcm.cli.preflight import check
from directcm.config import Config, parse
from directcm.config.specs import DISTANCES
from directcm.diffusion import distances
from directcm.diffusion.distances import Distance
from directcm.errors import UserError
from directcm.runtime import rng, weights
from directcm.runtime.weights import WEIGHTS, WeightsFile

VGG = DISTANCES["lpips"].weights[0]
# What torchvision's VGG-16 has where its features have weights: (place, channels in, channels out).
LAYERS = [
    (0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256), (14, 256, 256),
    (17, 256, 512), (19, 512, 512), (21, 512, 512), (24, 512, 512), (26, 512, 512), (28, 512, 512),
]  # fmt: skip


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """VGG-16's features at random, with the classifier that its file has too; scaled so that no layer dies out."""
    out: dict[str, Tensor] = {"classifier.0.weight": torch.zeros(2, 2)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for i, n, m in LAYERS:
            out[f"features.{i}.weight"] = torch.randn(m, n, 3, 3) * (2 / (9 * n)) ** 0.5
            out[f"features.{i}.bias"] = torch.randn(m) * 0.05
    return out


@pytest.fixture(scope="module")
def lpips(state: Mapping[str, Tensor]) -> Distance:
    return distances.lpips("cpu", state)


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    return tuple(rng.normal(0, name, range(2), (3, 16, 16)).clamp(-1, 1) for name in ("a", "b"))  # type: ignore[return-value]


@pytest.fixture
def unenlarged(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS of the images as they are, a fiftieth of the work: for what does not depend on their size."""
    monkeypatch.setattr(distances, "SIDE", 16)


@pytest.fixture(params=sorted(DISTANCES))
def distance(request: pytest.FixtureRequest, lpips: Distance, unenlarged: None) -> Distance:
    return lpips if request.param == "lpips" else distances.make(request.param, 1e-3, "cpu")


@pytest.mark.slow
def test_equal_is_nothing_and_the_order_does_not_matter(distance: Distance, images: tuple[Tensor, Tensor]) -> None:
    a, b = images
    assert distance(a, a).tolist() == [0.0, 0.0]
    there, back = distance(a, b), distance(b, a)
    assert there.shape == (2,) and there.dtype == torch.float32 and bool((there > 0).all())
    torch.testing.assert_close(there, back)


@pytest.mark.slow
def test_a_row_is_its_own(distance: Distance, images: tuple[Tensor, Tensor]) -> None:
    a, b = images
    alone = torch.cat([distance(a[i : i + 1], b[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(distance(a, b), alone)


@pytest.mark.slow
def test_gradients_flow_and_a_step_along_them_helps(distance: Distance, images: tuple[Tensor, Tensor]) -> None:
    a, b = images[0].clone().requires_grad_(), images[1]
    before = distance(a, b)
    (gradient,) = torch.autograd.grad(before.sum(), a)
    assert bool(torch.isfinite(gradient).all()) and bool((gradient.flatten(1).norm(dim=1) > 0).all())
    after = distance(a.detach() - 1e-2 * gradient / gradient.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1), b)
    assert bool((after < before).all())


def test_the_mean_of_absolute_differences() -> None:
    a, b = torch.zeros(2, 1, 2, 2), torch.tensor([3.0, 0, 0, -1, 0, 0, 0, 0]).reshape(2, 1, 2, 2)
    torch.testing.assert_close(distances.l1(a, b), torch.tensor([1.0, 0.0]))
    # Pseudo-Huber's limits: ℓ1 for small c.
    torch.testing.assert_close(distances.pseudo_huber(1e-8)(a, b), distances.l1(a, b))


# ------------------------------------------------------------------------- LPIPS


def library(state: Mapping[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library's own module, as it makes itself, on a VGG-16 that has our weights."""
    import lpips as own
    from torchvision.models import vgg

    class Features:
        def __init__(self) -> None:
            self.features = vgg.make_layers(vgg.cfgs["D"])
            self.features.load_state_dict(
                {name.removeprefix("features."): w for name, w in state.items() if name.startswith("features.")}
            )

    monkeypatch.setattr(own.pretrained_networks.tv, "vgg16", lambda pretrained: Features())
    return own.LPIPS(net="vgg", verbose=False)


@pytest.mark.slow
@pytest.mark.parametrize("side", [224, 240])
def test_agreement_with_the_librarys_own_module(
    side: int, state: Mapping[str, Tensor], lpips: Distance, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = (rng.normal(1, name, range(1), (3, side, side)).clamp(-1, 1) for name in "ab")
    with torch.no_grad():
        theirs = library(state, monkeypatch)(a, b)
        torch.testing.assert_close(lpips(a, b), theirs.flatten(), rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_small_images_are_enlarged_bilinearly(lpips: Distance, images: tuple[Tensor, Tensor]) -> None:
    a, b = (x[:1, :, :8, :8] for x in images)
    large = [torch.nn.functional.interpolate(x, size=(224, 224), mode="bilinear") for x in (a, b)]
    with torch.no_grad():
        torch.testing.assert_close(lpips(a, b), lpips(*large))


@pytest.mark.slow
def test_where_no_channel_answers_the_gradient_is_a_number(state: Mapping[str, Tensor], unenlarged: None) -> None:
    dead = {name: w - 1e4 if name == "features.0.bias" else w for name, w in state.items()}
    dead |= {name: 0 * w for name, w in state.items() if name.endswith("bias") and name != "features.0.bias"}
    a = torch.zeros(1, 3, 16, 16, requires_grad=True)
    loss = distances.lpips("cpu", dead)(a, torch.ones(1, 3, 16, 16))
    loss.sum().backward()
    assert loss.tolist() == [0.0] and a.grad is not None and a.grad.abs().sum() == 0


def test_nothing_of_it_is_trained_and_no_random_number_is_used(state: Mapping[str, Tensor]) -> None:
    before = torch.random.get_rng_state()
    network = distances.lpips_network(state)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not network.training and not any(p.requires_grad or p.is_meta for p in network.parameters())
    # Weights of the linear layers are such that a difference never counts as nearness.
    assert all(bool((p >= 0).all()) for p in network.lins.parameters())


def test_latents_and_other_weights_are_one_line(lpips: Distance, state: Mapping[str, Tensor], one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        lpips(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8))
    assert "4 channels" in one_line(error)
    with pytest.raises(UserError) as error:
        distances.lpips_network({name: w for name, w in state.items() if name != "features.7.bias"})
    assert "features.7.bias" in one_line(error)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("DIRECTCM_WEIGHTS", str(tmp_path))
    yield tmp_path
    weights._verified.clear()


@pytest.mark.slow
def test_weights_come_from_the_checked_cache(
    cache: Path, state: Mapping[str, Tensor], lpips: Distance, images: tuple[Tensor, Tensor], unenlarged: None, monkeypatch: Any,
    one_line: Any,
) -> None:  # fmt: skip
    with pytest.raises(UserError) as error:
        distances.make("lpips", 1e-3, "cpu")
    known = WEIGHTS[VGG]
    assert known.sha256.startswith("397923af")
    for word in (VGG, known.url, known.sha256, str(cache)):
        assert word in one_line(error)
    torch.save(dict(state), cache / VGG)
    with pytest.raises(UserError, match="delete it"):
        distances.make("lpips", 1e-3, "cpu")
    digest = hashlib.sha256((cache / VGG).read_bytes()).hexdigest()
    monkeypatch.setitem(WEIGHTS, VGG, WeightsFile(VGG, digest, known.url))
    with torch.no_grad():
        assert torch.equal(distances.make("lpips", 1e-3, "cpu")(*images), lpips(*images))


PIXELS: dict[str, Any] = {"process": {"kind": "karras"}, "teacher": {"kind": "edm"}, "ode": {"N": 18}}


def test_missing_weights_are_named_before_the_first_job(cache: Path, one_line: Any) -> None:
    check(parse(Config, {**PIXELS, "train": {"loss": "lpips"}, "students": [{"loss": ["l1"]}]}))
    for content in ({"train": {"loss": "lpips"}, "students": [{}]}, {"students": [{}, {"loss": ["mse", "lpips"]}]}):
        with pytest.raises(UserError) as error:
            check(parse(Config, {**PIXELS, **content}))
        assert VGG in one_line(error) and WEIGHTS[VGG].sha256 in str(error.value)


@pytest.mark.parametrize("content", [{"train": {"loss": "lpips"}}, {"students": [{"loss": ["mse", "lpips"]}]}])
def test_on_latents_it_is_refused(content: dict[str, Any], one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        parse(Config, content)
    assert "loss lpips compares images, but what teacher.kind micro_sdxl diffuses are latents" in one_line(error)
