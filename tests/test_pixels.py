"""Teachers on pixels: EDM's preconditioning and loss against closed forms, labels and ∅, the exact teacher of images, students of both."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from directcm import config, datasets
from directcm.analysis.pages.cards import card
from directcm.config import Data, Edm, Encode, Evaluation, Ode, Process, Run, Targets, Train, parse, registry
from directcm.datasets import digits
from directcm.diffusion import processes
from directcm.diffusion.processes import VarianceExploding, VariancePreserving, expand
from directcm.diffusion.solvers import make_solver, solve
from directcm.diffusion.teachers import Conditioning, edm, load, load_codec, loader, mixture, pixel_diffusion
from directcm.diffusion.teachers.codec import to_tensor
from directcm.diffusion.teachers.mixture import Mixture
from directcm.diffusion.teachers.pixel_diffusion import PixelDiffusion, Pixels
from directcm.distill import encode, noise, students, targets, training
from directcm.distill.encode import Latents
from directcm.distill.methods import cm, cmt, ct, pd
from directcm.errors import UserError
from directcm.evaluation import baselines, sampling
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, new_artifact, open_artifact, open_collection, write_json
from directcm.runtime.loop import cosine, warmed

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow

SEED = 24
KARRAS = Process(kind="karras")
CLASSES = ("0", "1", "2")
SMALL = {"unet": {"channels": [16, 16]}, "steps": 6, "batch_size": 8}
ODE = Ode(solver="heun", N=4, w=2.0)


def student_run(method: str, **changes: Any) -> Run:
    own = {"adapter": "full", "loss": "mse", "lr": 1e-3, "batch_size": 4, "pool": 8, "seed": 0}
    return Run(**{"method": method, **ODE.axes(), **own, **changes})


class Network:
    """Stands in for a UNet2DModel: answers by a function, and remembers what it was told."""

    dtype = torch.float32
    config = SimpleNamespace(sample_size=4, in_channels=3, num_class_embeds=len(CLASSES) + 1)

    def __init__(self, answer: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.answer = answer

    def parameters(self) -> Any:
        return iter([torch.zeros(1)])

    def __call__(self, x: Tensor, t: Tensor, class_labels: Tensor) -> Any:
        self.x, self.t, self.labels = x, t, class_labels
        return SimpleNamespace(sample=self.answer(x, t))


def at(name: str) -> tuple[processes.Process, Tensor]:
    """A process and some times of it."""
    if name == "vp":
        return VariancePreserving.scaled_linear(), torch.tensor([1.0, 300.0, 1000.0])
    return VarianceExploding(sigma_data=0.5), torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)


def points(process: processes.Process, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    shape = (3, 4, 4)
    x0, eps = 0.5 * rng.normal(0, "x0", range(len(t)), shape), rng.normal(0, "eps", range(len(t)), shape)
    return x0, eps, process.diffuse(x0, eps, t)


# ----------------------------------------------------------------- preconditioning


def test_preconditioning_is_that_of_the_paper() -> None:
    """D = c_skip·x + c_out·F(c_in·x; c_noise), each from Table 1 of 2206.00364, written out here."""
    process, t = at("ve")
    _, _, x = points(process, t)
    f = rng.normal(1, "f", range(3), (3, 4, 4))
    network = Network(lambda x, t: f)
    got = PixelDiffusion(network, process).predict(x, t, Conditioning({"label": torch.tensor([0, 1, 2])}))
    for i, s in enumerate(t.tolist()):
        total = s**2 + 0.25
        torch.testing.assert_close(network.x[i], x[i] / total**0.5, rtol=1e-6, atol=1e-7)
        # 1000 times their ¼ ln σ, as 2303.01469 has it.
        assert float(network.t[i]) == pytest.approx(1000 * np.log(s) / 4, rel=1e-6)
        denoised = 0.25 / total * x[i].double() + 0.5 * s / total**0.5 * f[i].double()
        torch.testing.assert_close(got.x0[i].double(), denoised, rtol=1e-4, atol=2e-5 * max(1, s))
        torch.testing.assert_close(
            got.eps[i].double(), (x[i] - denoised) / s, rtol=1e-3, atol=1e-3 * (0.002 / s) + 1e-6
        )


def test_on_a_discrete_process_the_network_is_the_noise() -> None:
    process, t = at("vp")
    _, eps, x = points(process, t)
    network = Network(lambda x, t: eps)
    assert torch.equal(PixelDiffusion(network, process).noise(x, t, None), eps)
    assert network.t.tolist() == [0, 299, 999] and torch.equal(network.x, x)


def test_at_the_grids_end_the_noise_keeps_its_digits() -> None:
    """(x − D)/t in float32 would lose three of them at t = 0.002: against the same in float64."""
    process, _ = at("ve")
    t = torch.full((4,), 0.002, dtype=torch.float64)
    _, _, x = points(process, t)
    f = rng.normal(1, "f", range(4), (3, 4, 4))
    skip, out = (expand(c, x.double()) for c in process.denoiser(t))  # type: ignore[attr-defined]
    exact = (x.double() - (skip * x.double() + out * f.double())) / 0.002
    got = PixelDiffusion(Network(lambda x, t: f), process).noise(x, t, None)
    torch.testing.assert_close(got.double(), exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["vp", "ve"])
def test_the_exact_teacher_in_the_networks_place(name: str) -> None:
    """A network that answers F* = (ε̂ − a·x)/b of the exact mixture is the exact mixture."""
    process, t = at(name)
    _, _, x = points(process, t)
    exact = Mixture(process, 0.5 * rng.normal(3, "m", range(5), (3, 4, 4)).double(), 0.1)
    own, network = process.output_scales(t)
    best = (exact.noise(x, t, None) - expand(own, x).double() * x) / expand(network, x).double()
    assert float(best.abs().max()) < 40
    got = PixelDiffusion(Network(lambda *_: best.float()), process).predict(x, t, None)
    torch.testing.assert_close(got.eps, exact.predict(x, t, None).eps, rtol=1e-4, atol=1e-4)


# ----------------------------------------------------------------- the loss


def test_weight() -> None:
    process = VarianceExploding(sigma_data=0.5)
    t = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    assert float(process.loss_weight(t)[1]) == pytest.approx(8.0)
    # λ·c_out² = 1: the network's own error weighs the same at every time.
    torch.testing.assert_close(process.loss_weight(t) * process.denoiser(t)[1] ** 2, torch.ones(3).double())


@pytest.mark.parametrize("time", [0.01, 0.5, 3.0])
def test_loss_of_the_optimum_is_one(time: float) -> None:
    """Of data N(0, σ_d²) the best D is c_skip·x, the best F is 0, and λ·Var(x₀ | x) = 1 at every time."""
    process = VarianceExploding(sigma_data=0.5)
    rows = 2000
    x0, eps = 0.5 * rng.normal(0, "x", range(rows), (3, 4, 4)), rng.normal(0, "e", range(rows), (3, 4, 4))
    t, cond = (
        torch.full((rows,), time, dtype=torch.float64),
        Conditioning({"label": torch.zeros(rows, dtype=torch.long)}),
    )

    def loss(f: float) -> float:
        teacher = PixelDiffusion(Network(lambda x, t: torch.full_like(x, f)), process)
        return float(edm.weighted_loss(teacher, x0, eps, t, cond).mean())

    # 96,000 squares of a normal: their mean has a standard deviation of 0.0046.
    assert loss(0.0) == pytest.approx(1.0, abs=0.02)
    assert loss(0.3) - loss(0.0) == pytest.approx(0.09, abs=0.01)


def test_schedules() -> None:
    flat, down = warmed(2.0, 100, 50), cosine(2.0, 100, 50)
    assert [flat(s) for s in (0, 24, 49, 50, 99)] == [0.04, 1.0, 2.0, 2.0, 2.0]
    assert down(75) == pytest.approx(1.0) and [down(s) for s in (0, 49, 50)] == [0.04, 2.0, 2.0]


# ----------------------------------------------------------------- labels


def test_no_class_is_the_networks_last() -> None:
    process, t = at("ve")
    _, _, x = points(process, t)
    network = Network(lambda x, t: x)
    teacher = PixelDiffusion(network, process)
    cond = Conditioning({"label": torch.tensor([2, 0, -1])})
    teacher.noise(x, t, cond)
    assert network.labels.tolist() == [2, 0, 3]
    teacher.noise(x, t, None)
    assert network.labels.tolist() == [3, 3, 3]
    teacher.predict(x, t, cond, 2.0)
    assert network.labels.tolist() == [3, 3, 3, 2, 0, 3]


def test_labels_become_classes_or_one_line(one_line: Any) -> None:
    codec = Pixels(["3", "5"])
    assert codec.condition(["a", "b"], ["5", "3"]).tensors["label"].tolist() == [1, 0]
    for label in ("", "7", "3 or 5"):
        with pytest.raises(UserError) as error:
            codec.condition(["a picture"], [label])
        assert repr(label) in one_line(error) and "'a picture'" in str(error.value)


# ----------------------------------------------------------------- the small run


class Small(SimpleNamespace):
    """Artefacts: data of 40 labelled digits; per teacher its latents, noise, targets and both students."""

    data: Artifact


def make_teacher(kind: str, data: Artifact, folder: Path) -> Artifact:
    if kind == "edm":
        edm.make(parse(Edm, SMALL), KARRAS, data, SEED, folder / "scratch", folder / "teacher")
    else:
        settings = parse(config.Mixture, {"scale": 0.05, "student": SMALL["unet"]})
        mixture.make(
            settings,
            Process() if kind == "mixture on vp" else KARRAS,
            data,
            SEED,
            folder / "scratch",
            folder / "teacher",
        )
    return open_artifact(folder / "teacher", "teacher")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    root = tmp_path_factory.mktemp("pixels")
    some = list(itertools.islice(digits.items(Data())[1], 40))
    datasets.write(len(some), some, Data(), SEED, root / "data")
    return open_artifact(root / "data", "data")


@pytest.fixture(scope="module", params=["edm", "mixture", "mixture on vp"])
def small(request: pytest.FixtureRequest, data: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Small:
    root = tmp_path_factory.mktemp(request.param.replace(" ", "_"))
    s = Small(kind=request.param, root=root, data=data, teacher=make_teacher(request.param, data, root))
    encode.make(Encode(batch_size=16), s.teacher, data, SEED, "cpu", "no", root / "e", root / "latents")
    s.latents = open_artifact(root / "latents", "latents")
    noise.make(6, "evaluation", data, s.latents, SEED, root / "noise")
    s.noise = open_artifact(root / "noise", "noise")
    sized = Targets(shard=8, block=4, batch_size=4)
    targets.make(
        sized, ODE, 0, s.teacher, s.latents, SEED, "cpu", "no", root / "t", root / "targets"
    )  # fmt: skip
    s.targets = open_artifact(root / "targets", "targets")
    for method in ("cm", "direct_cm"):
        run = student_run(method, steps=4)
        solved = [s.targets] if method == "direct_cm" else []
        training.make(
            run, Train(checkpoint_every=2), [2], s.teacher, s.latents, solved, SEED, root / f"s-{method}", None, root / method
        )  # fmt: skip
        setattr(s, method, open_artifact(root / method, "student"))
    return s


def test_encoding_is_the_identity_and_labels_are_the_conditioning(small: Small) -> None:
    pool, rows = Latents(small.latents.verify()), small.data.csv("images.csv")
    ids = torch.tensor([39, 0, 7])
    pixels = to_tensor([Image.open(small.data.file(rows[i]["file_name"])) for i in ids.tolist()])
    assert torch.equal(pool.latents(ids), pixels) and pool.shape == (3, 16, 16)
    labels = [int(rows[i]["label"]) for i in ids.tolist()]
    assert pool.conditioning(ids).tensors["label"].tolist() == labels
    assert pool.conditioning(ids).tensors.keys() == {"label"}
    codec = load_codec(small.teacher)
    assert not codec.latent and torch.equal(codec.decode(2 * pixels), (2 * pixels).clamp(-1, 1))


def test_samples_are_decoded_to_the_pixels_they_are(small: Small) -> None:
    what = sampling.Evaluated(
        Evaluation(samples=6, block=3, batch_size=2), small.teacher, small.latents, small.noise, SEED, "cpu"
    )
    sampling.sample_teacher(what, ODE, 0, 1, small.root / "s1", small.root / "reference")
    sampling.sample_students(what, ODE, small.cm, [(4, 1), (4, 2), (2, 1)], small.root / "s2", small.root / "samples")
    for folder in (small.root / "reference", small.root / "samples" / sampling.set_name(4, 2)):
        made = open_artifact(folder, "samples")
        pixels = made.tensors("latents.safetensors")["latents"].clamp(-1, 1)
        shown = to_tensor([Image.open(made.file(f"images/{i:05d}.png")) for i in range(6)])
        assert float((pixels - shown).abs().max()) <= 1 / 255 + 1e-6


@pytest.mark.parametrize("method", ["cm", "direct_cm"])
def test_students_start_at_their_network_and_hold_the_boundary(small: Small, method: str) -> None:
    teacher = load(small.teacher)
    before = {k: v.clone() for k, v in teacher.start.network.state_dict().items()}
    who = students.load(teacher, getattr(small, method))
    process = teacher.process
    x = process.diffuse(*(rng.normal(5, n, range(2), (3, 16, 16)) for n in "ab"), torch.full((2,), process.end))
    cond = Conditioning({"label": torch.tensor([1, -1])})
    with torch.no_grad():
        assert torch.equal(who(x, torch.full((2,), process.end, dtype=torch.float64), cond), x)
        start = process.prior(x)
        assert not torch.equal(
            who(start, torch.full((2,), process.start, dtype=torch.float64), cond),
            students.make_student(teacher, "full", 0)(
                start, torch.full((2,), process.start, dtype=torch.float64), cond
            ),
        )
    after = teacher.start.network.state_dict()
    assert all(torch.equal(v, after[k]) for k, v in before.items())


def test_stock_diffusers_reads_a_student(small: Small) -> None:
    """What the model card says: the network alone, and the formulas written out."""
    from diffusers import DDPMScheduler, UNet2DModel

    unet = UNet2DModel.from_pretrained(small.direct_cm.folder / "unet")
    assert unet.config.num_class_embeds == 11
    process = load(small.teacher).process
    x, label, t = process.prior(rng.normal(6, "x", range(3), (3, 16, 16))), torch.tensor([0, 4, 10]), process.start
    with torch.no_grad():
        if small.kind == "mixture on vp":
            bar = DDPMScheduler(1000, 0.00085, 0.012, "scaled_linear").alphas_cumprod[999]
            eps = unet(x, torch.full((3,), 999), class_labels=label).sample
            x0 = (x - (1 - bar).sqrt() * eps) / bar.sqrt()
            own = 0.25 / ((10 * t) ** 2 + 0.25) * x + 10 * t / ((10 * t) ** 2 + 0.25) ** 0.5 * x0
        else:
            total, off = t**2 + 0.25, t - 0.002
            f = unet(x / total**0.5, torch.full((3,), 250 * np.log(t)), class_labels=label).sample
            own = 0.25 / (off**2 + 0.25) * x + 0.5 * off / total**0.5 * f
        who = students.load(load(small.teacher), small.direct_cm)
        cond = Conditioning({"label": torch.where(label == 10, -1, label)})
        got = who(x, torch.full((3,), t, dtype=torch.float64), cond)
    torch.testing.assert_close(got, own, rtol=1e-4, atol=1e-4)


def test_the_card_says_how_to_load_it(small: Small) -> None:
    text = card(small.cm, small.teacher, small.data, [])
    assert 'UNet2DModel.from_pretrained("<this folder>", subfolder="unet")' in text and "StableDiffusionXL" not in text
    assert ("t − 1" if small.kind == "mixture on vp" else "250·ln t") in text and "license: apache-2.0" in text


def test_a_lora_is_trained_alone_and_saved_merged(small: Small, tmp_path: Path) -> None:
    """diffusers has no LoRA for a UNet2DModel: the student is a whole network there, W + B·A."""
    from diffusers import UNet2DModel

    teacher = load(small.teacher)
    who = students.make_student(teacher, "lora4", 0)
    unet = who.teacher.network
    free = {name for name, p in unet.named_parameters() if p.requires_grad}
    assert free and all("lora_" in name for name in free)
    assert {name.split(".lora_")[0].rpartition(".")[2] for name in free} >= {"to_q", "conv1", "time_emb_proj", "conv"}
    process = who.process
    x, t = (
        process.prior(rng.normal(6, "x", range(3), (3, 16, 16))),
        torch.full((3,), process.start, dtype=torch.float64),
    )
    cond = Conditioning({"label": torch.tensor([0, 4, -1])})
    start = students.make_student(teacher, "full", 0)
    with torch.no_grad():
        assert torch.equal(who(x, t, cond), start(x, t, cond))
        for i, p in enumerate(p for p in unet.parameters() if p.requires_grad):
            p.add_(0.1 * rng.normal(1, "shake", [i], tuple(p.shape))[0])
        want = who(x, t, cond)
        assert float((want - start(x, t, cond)).abs().max()) > 0.01
        with new_artifact(tmp_path / "student", "student", settings={}, inputs={"teacher": small.teacher}) as art:
            students.save(unet, "lora4", art.path)
            write_json(art / "student.json", {"run": {"adapter": "lora4", "steps": 4}, "snapshots": []})
        got = students.load(teacher, open_artifact(tmp_path / "student", "student"))(x, t, cond)
        # Saving changes nothing of the one that is still in training.
        assert torch.equal(who(x, t, cond), want)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-3)
    stock = UNet2DModel.from_pretrained(tmp_path / "student" / "unet")
    assert sum(p.numel() for p in stock.parameters()) == sum(p.numel() for p in start.teacher.network.parameters())


@pytest.fixture(scope="module")
def on_edm(data: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Artifact]:
    """Trains a student of any method on the small EDM, N = 4, with a checkpoint after every other of its six steps."""
    root = tmp_path_factory.mktemp("methods")
    teacher = make_teacher("edm", data, root)
    encode.make(Encode(batch_size=16), teacher, data, SEED, "cpu", "no", root / "e", root / "latents")
    latents = open_artifact(root / "latents", "latents")
    sized = Targets(shard=8, block=8, batch_size=4)
    solved: dict[str, list[Artifact]] = {"": []}
    for coupling in registry.START_POINTS:
        targets.make(
            sized, ODE, 0, teacher, latents, SEED, "cpu", "no", root / f"s-{coupling}",
            root / coupling, coupling,
        )  # fmt: skip
        solved[coupling] = [open_artifact(root / coupling, "targets")]

    def train(
        method: str,
        out: Path,
        coupling: str | None = None,
        snapshots: Sequence[int] = (),
        seed: int = 0,
        ema: float | None = None,
        **own: float,
    ) -> Artifact:
        run = student_run(method, steps=6, seed=seed)
        given = solved[registry.methods()[method].targets if coupling is None else coupling]
        training.make(
            run, Train(checkpoint_every=2, ema=ema), snapshots, teacher, latents, given, SEED, out.with_name(f"scratch-{out.name}"), None, out, own,
        )  # fmt: skip
        return open_artifact(out, "student")

    train.data, train.latents, train.teacher, train.solved = data, latents, teacher, solved  # type: ignore[attr-defined]
    return train


@pytest.mark.parametrize("method", registry.methods())
def test_every_method_trains_and_goes_on_where_it_was_stopped(
    on_edm: Callable[..., Artifact], tmp_path: Path, method: str
) -> None:
    whole = on_edm(method, tmp_path / "whole")
    curve = [float(r["loss"]) for r in whole.csv("curve.csv")]
    assert len(curve) == 6 and all(np.isfinite(curve))
    # From its newest checkpoint, of step 4, with what a method carries along: averages, the student of the stage before.
    (tmp_path / "scratch-whole").rename(tmp_path / "scratch-again")
    assert [p.name for p in sorted((tmp_path / "scratch-again").glob("checkpoint-*"))][-1].endswith("4")
    assert on_edm(method, tmp_path / "again").fingerprint == whole.fingerprint
    declared = registry.methods()[method]
    # Heun under guidance takes four rows a step; PD's first stage of two takes two such steps, the second none.
    # What a student is billed it has asked the teacher for, but for steps that its targets hold.
    halves = dict.fromkeys(("direct_then_cm", "cm_then_direct"), 12 * 4)
    always = dict.fromkeys(("cm", "cd", "cm_above", "direct_cm_above"), 24 * 4)
    # In continuous time one evaluation for a slope, guided.
    slopes = dict.fromkeys(("cd_inf", "scd"), 24 * 2)
    forwards = {**always, "pd": 12 * 2 * 4, **halves, **slopes}.get(method, 0)
    assert whole.json("student.json")["forwards"]["6"]["teacher"] == forwards and bool(forwards) == declared.teacher
    assert whole.counts["teacher_forwards"] == (0 if declared.stored and declared.targets else forwards)
    assert whole.settings.get("own", {}) == declared.hparams


def test_a_methods_own_module_is_trained_beside_the_student_and_not_kept(
    on_edm: Callable[..., Artifact], tmp_path: Path
) -> None:
    """sCM's w: in checkpoints with its averages and moments, moved by the optimiser, and in no file of the student."""
    from safetensors.torch import load_file

    student = on_edm("scd", tmp_path / "s", snapshots=[3], ema=0.9)
    newest = max((tmp_path / "scratch-s").glob("checkpoint-*"))
    state = load_file(newest / "state.safetensors")
    w = "own.linear.weight"
    assert {f"model.{w}", f"smooth.{w}"} <= state.keys() and not any("own." in k for k in state if k.startswith("ema."))
    assert 0 < float(state[f"model.{w}"].abs().max()) <= 6 * 1e-3 * 1.01
    assert not torch.equal(state[f"model.{w}"], state[f"smooth.{w}"])
    plain = on_edm("ct_inf", tmp_path / "plain", snapshots=[3], ema=0.9)
    shape = ["student.json", "curve.csv", "unet/diffusion_pytorch_model.safetensors"]
    assert student.checksums.keys() == plain.checksums.keys() >= set(shape)
    free = [load_file(one.file(shape[2])).keys() for one in (student, plain)]
    assert free[0] == free[1]
    assert student.counts["trainable_parameters"] == plain.counts["trainable_parameters"]


@pytest.mark.parametrize(
    "method, half, whole",
    [
        # Twelve pairs by half of six steps of four. PD: in its first stage two guided steps of Heun, eight rows, and one forward.
        ("pd", (12, 96, 0), (12 + 36, 96, 0)),
        ("direct_then_cm", (12, 0, 8), (12 + 24, 48, 8)),
        ("cmt", (12, 0, 8), (12 + 24, 0, 8)),
        ("cm", (24, 48, 0), (48, 96, 0)),
        ("direct_cm", (12, 0, 8), (24, 0, 8)),
        ("ct", (24, 0, 0), (48, 0, 0)),
        # A derivative counts as two forwards.
        ("scd", (36, 24, 0), (72, 48, 0)),
        ("ct_inf", (36, 0, 0), (72, 0, 0)),
    ],
)
def test_what_each_part_costs(
    on_edm: Callable[..., Artifact], tmp_path: Path, method: str, half: tuple[int, ...], whole: tuple[int, ...]
) -> None:
    """Rows through the student, through the teacher, and endpoints used of the pool's eight; N = 4."""
    student = on_edm(method, tmp_path / "s", snapshots=[3])
    made = student.json("student.json")["forwards"]
    names = ("student", "teacher", "endpoints")
    assert made == {"3": dict(zip(names, half, strict=True)), "6": dict(zip(names, whole, strict=True))}
    # CM's second part reads the first steps of the endpoints' solve: billed, and not made.
    made = 0 if method == "direct_then_cm" else whole[1]
    assert student.counts["student_forwards"] == whole[0] and student.counts["teacher_forwards"] == made


def test_progressive_distillation_in_two_steps_is_the_first_stages_student(
    on_edm: Callable[..., Artifact], tmp_path: Path
) -> None:
    """N = 4 halves twice: after three of six steps the student takes two steps, without noise of its own."""
    student = on_edm("pd", tmp_path / "s")
    assert student.json("student.json")["snapshots"] == [3] and student.settings["snapshots"] == []
    noise.make(4, "evaluation", on_edm.data, on_edm.latents, SEED, tmp_path / "noise")
    what = sampling.Evaluated(
        Evaluation(samples=4, steps=[1, 2], shards=1, block=4, batch_size=4), on_edm.teacher, on_edm.latents,
        open_artifact(tmp_path / "noise", "noise"), SEED, "cpu",
    )  # fmt: skip
    sampling.sample_students(what, ODE, student, [(6, 2), (6, 1)], tmp_path / "scratch", tmp_path / "samples")
    parts = open_collection(tmp_path / "samples", "samples")
    cond, process = what.pool.conditioning(what.ids), what.model.process
    T, middle = (process.grid(4)[i].expand(4) for i in (0, 2))
    start = process.prior(what.initial)
    with torch.no_grad():
        first = students.load(what.model, student, 3)
        x = pd.jump(process, start, first(start, T, cond), T, middle)
        wants = {1: students.load(what.model, student)(start, T, cond), 2: first(x, middle, cond)}
    for k, want in wants.items():
        got = parts[sampling.set_name(6, k)].tensors("latents.safetensors")["latents"]
        torch.testing.assert_close(got, want, rtol=0, atol=0)
    with pytest.raises(UserError, match="4 steps are the teacher's own"):
        sampling.sample_students(what, ODE, student, [(6, 4)], tmp_path / "scratch2", tmp_path / "more")


@pytest.mark.slow
def test_what_learns_from_data_alone_draws_no_pair_twice(
    on_edm: Callable[..., Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty-four pairs of a pool of eight; CM sees each of the eight three times, in every seed, CT other ones in each."""
    seen: dict[tuple[str, int], list[torch.Tensor]] = {}
    for method in (cm, ct, cmt):
        name = method.__name__.rpartition(".")[2]
        for seed in (0, 1):
            own = seen[name, seed] = []
            real = method.loss
            with monkeypatch.context() as patch:
                patch.setattr(method, "loss", lambda s, b, o, own=own, real=real: own.append(b.eps) or real(s, b, o))
                student = on_edm(name, tmp_path / f"{name}{seed}", seed=seed)
            assert student.counts["distinct_pairs"] == (8 if name == "cm" else 24)
    sets = {which: {tuple(row.flatten().tolist()) for row in torch.cat(eps)} for which, eps in seen.items()}
    assert {which: len(found) for which, found in sets.items()} == {
        ("cm", 0): 8, ("cm", 1): 8, ("ct", 0): 24, ("ct", 1): 24, ("cmt", 0): 24, ("cmt", 1): 24,
    }  # fmt: skip
    assert sets["cm", 0] == sets["cm", 1] and not sets["ct", 0] & sets["ct", 1]


@pytest.mark.slow
def test_a_method_s_own_numbers_count(on_edm: Callable[..., Artifact], tmp_path: Path) -> None:
    one, other = on_edm("cd", tmp_path / "one"), on_edm("cd", tmp_path / "other", mu=0.0)
    assert other.settings["own"] == {"mu": 0.0}
    curves = [[float(r["loss"]) for r in a.csv("curve.csv")] for a in (one, other, on_edm("cm", tmp_path / "cm"))]
    assert curves[0][0] == curves[1][0] and curves[0][-1] != curves[1][-1]
    # With μ = 0 the target network is the student.
    assert curves[1] == curves[2]


@pytest.mark.slow
def test_a_student_that_is_evaluated_as_an_average(on_edm: Callable[..., Artifact], tmp_path: Path) -> None:
    """Of decay 0.5: half of the weights of the last step, a quarter of those before …, at the end and at a snapshot; of 0 the weights."""
    steps = range(1, 7)
    plain = on_edm("ct", tmp_path / "plain", snapshots=steps[:-1])
    mean = on_edm("ct", tmp_path / "mean", snapshots=[3], ema=0.5)
    model = load(on_edm.teacher)

    def weights(student: Artifact, step: int) -> dict[str, Tensor]:
        return dict(students.load(model, student, step).teacher.network.named_parameters())

    after = [dict(model.start.network.named_parameters()), *(weights(plain, step) for step in steps)]
    for step in (3, 6):
        for name, value in weights(mean, step).items():
            hand = after[0][name].double()
            for one in after[1 : step + 1]:
                hand = (hand + one[name].double()) / 2
            torch.testing.assert_close(value.double(), hand, rtol=1e-5, atol=1e-7)
    assert on_edm("ct", tmp_path / "none", snapshots=steps[:-1], ema=0.0).checksums == plain.checksums


def test_a_method_s_dropout_is_its_students_in_training(on_edm: Callable[..., Artifact], tmp_path: Path) -> None:
    """Masks are those of the step: stopped and resumed it has the same bytes; no other method has any, and what is saved has none."""
    whole, without = on_edm("ict", tmp_path / "whole", dropout=0.3), on_edm("ict", tmp_path / "without")
    curves = [[float(r["loss"]) for r in a.csv("curve.csv")] for a in (whole, without)]
    assert curves[0][0] != curves[1][0]
    (tmp_path / "scratch-whole").rename(tmp_path / "scratch-again")
    assert on_edm("ict", tmp_path / "again", dropout=0.3).fingerprint == whole.fingerprint
    saved = students.load(load(on_edm.teacher), whole).teacher.network
    assert all(m.p == 0 for m in saved.modules() if isinstance(m, torch.nn.Dropout))


def test_trajectories_are_the_teachers(on_edm: Any) -> None:
    """Eight start points of N = 4 are two trajectories: each point's endpoint is where the ODE leads from it."""
    teacher, pool = load(on_edm.teacher), Latents(on_edm.latents)
    (shard,) = on_edm.solved["trajectory"]
    found = shard.tensors("targets.safetensors")
    grid = teacher.process.grid(4)
    assert torch.equal(found["time"], grid[:4].repeat(2))
    assert shard.settings["coupling"] == "trajectory" and shard.counts["teacher_forwards"] == 2 * 4 * 2 * 2
    eps = rng.normal(SEED, "start_noise", [0, 1], pool.shape)
    assert torch.equal(found["x"][[0, 4]], teacher.process.prior(eps))
    assert torch.equal(found["endpoint"][:4], found["endpoint"][:1].expand(4, -1, -1, -1))
    ends, *_ = solve(
        teacher, make_solver(ODE.solver), found["x"], torch.arange(8) % 4, 4, pool.conditioning(found["id"]), 2.0, 3
    )
    torch.testing.assert_close(ends, found["endpoint"], rtol=1e-4, atol=1e-4)
    (prior,) = on_edm.solved["prior"]
    straight = prior.tensors("targets.safetensors")
    assert bool((straight["time"] == 80).all())
    torch.testing.assert_close(straight["endpoint"][:2], found["endpoint"][[0, 4]], rtol=1e-4, atol=1e-4)


def test_targets_of_another_coupling_are_refused(
    on_edm: Callable[..., Artifact], tmp_path: Path, one_line: Any
) -> None:
    with pytest.raises(UserError) as error:
        on_edm("straight", tmp_path / "out", coupling="forward")
    assert "'coupling': 'prior'" in one_line(error)


def test_the_exact_teacher_of_images(data: Artifact, tmp_path: Path) -> None:
    teacher = load(make_teacher("mixture", data, tmp_path))
    rows = [r for r in data.csv("images.csv") if r["split"] == "train"]
    means = to_tensor([Image.open(data.file(r["file_name"])) for r in rows])
    labels = torch.tensor([int(r["label"]) for r in rows])
    own = Mixture(VarianceExploding(), means, 0.05, labels=labels)
    t = torch.tensor([0.3, 2.0, 40.0], dtype=torch.float64)
    x = teacher.process.diffuse(means[:3], rng.normal(0, "e", range(3), (3, 16, 16)), t)
    cond = Conditioning({"label": labels[:3]})
    for w in (1.0, 2.0):
        assert torch.equal(teacher.predict(x, t, cond, w).eps, own.predict(x, t, cond, w).eps)
    with pytest.raises(ValueError, match="no network of its own"):
        own.start  # noqa: B018
    # Of the students' network as it lies there: the exact teacher's scale shows in none of it.
    again = make_teacher("mixture", data, tmp_path / "again")
    assert again.fingerprint == open_artifact(tmp_path / "teacher", "teacher").fingerprint


def test_training_twice_and_resumed_gives_the_same_bytes(
    data: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_teacher("edm", data, tmp_path / "first")
    assert first.counts["sigma_data_measured"] == pytest.approx(float(edm.read_images(data)[0].std()), rel=1e-4)
    whole = edm.Job

    def often(*args: Any, **options: Any) -> Any:
        return whole(*args, **{**options, "checkpoint_every": 2})

    monkeypatch.setattr(edm, "Job", often)
    make_teacher("edm", data, tmp_path)
    shutil.rmtree(tmp_path / "teacher")
    assert [p.name for p in (tmp_path / "scratch" / "unet").glob("checkpoint-*")]
    assert make_teacher("edm", data, tmp_path).fingerprint == first.fingerprint


def test_dropout_is_the_teachers_training_alone(
    data: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its masks are those of the step, resumed or not; what is saved, and students start from, has none."""
    plain, whole = make_teacher("edm", data, tmp_path / "plain"), edm.Job
    monkeypatch.setattr(edm, "Job", lambda *args, **options: whole(*args, **{**options, "checkpoint_every": 4}))
    made = []
    for again in range(2):
        torch.manual_seed(again)
        edm.make(parse(Edm, {**SMALL, "dropout": 0.3}), KARRAS, data, SEED, tmp_path / "s", tmp_path / str(again))
        made.append(open_artifact(tmp_path / str(again), "teacher"))
    assert (tmp_path / "s" / "unet").exists() and made[0].fingerprint == made[1].fingerprint != plain.fingerprint
    assert made[0].settings["dropout"] == 0.3 and "dropout" not in plain.settings
    network = load(made[0]).network
    assert network.config.dropout == 0
    assert all(m.p == 0 for m in network.modules() if isinstance(m, torch.nn.Dropout))
    trained = pixel_diffusion.make_unet(parse(Edm, SMALL).unet, 16, 10, 0.3)
    assert any(m.p == 0.3 for m in trained.modules() if isinstance(m, torch.nn.Dropout))


@pytest.mark.parametrize(("attention", "levels"), [(None, {1}), ([0], {0}), ([0, 1], {0, 1}), ([], set())])
def test_where_the_network_attends(attention: list[int] | None, levels: set[int]) -> None:
    unet = pixel_diffusion.make_unet(parse(config.PixelUnet, {"channels": [16, 32], "attention": attention}), 16, 10)
    found = [
        {i for i, block in enumerate(blocks) if hasattr(block, "attentions")}
        for blocks in (unet.down_blocks, unet.up_blocks)
    ]
    assert found == [levels, {1 - i for i in levels}]


def test_what_is_saved_is_the_average(data: Artifact, tmp_path: Path) -> None:
    """With a decay that is nearly one the average is still the start, whatever was learnt."""
    settings = {**SMALL, "ema": 0.999999}
    edm.make(parse(Edm, settings), KARRAS, data, SEED, tmp_path / "s", tmp_path / "teacher")
    rng.seed_torch(SEED, "unet_init")
    start = pixel_diffusion.make_unet(parse(Edm, SMALL).unet, 16, 10)
    saved = load(open_artifact(tmp_path / "teacher", "teacher")).network.state_dict()
    for name, value in start.state_dict().items():
        torch.testing.assert_close(saved[name], value, rtol=1e-4, atol=1e-5)


def test_unlabelled_data_and_the_wrong_process_are_one_line(
    tiny: Any, data: Artifact, tmp_path: Path, one_line: Any
) -> None:
    with pytest.raises(UserError) as error:
        make_teacher("edm", tiny.data, tmp_path)
    assert "no labels" in one_line(error) and "metadata.csv" in str(error.value)
    with pytest.raises(UserError) as error:
        edm.make(parse(Edm, SMALL), Process(), data, SEED, tmp_path / "s", tmp_path / "teacher")
    assert "process.kind karras" in one_line(error)


@pytest.mark.parametrize("kind", ["edm", "mixture"])
def test_own_images_with_labels(kind: str, tmp_path: Path) -> None:
    """A folder whose metadata.csv has them is as good as the digits."""
    own, lines = tmp_path / "own", ["file_name,text,label"]
    own.mkdir()
    for i, item in enumerate(itertools.islice(digits.items(Data())[1], 12)):
        item.image.save(own / f"{i}.png")
        odd = int(item.label) % 2
        lines.append(f"{i}.png,an {'odd' if odd else 'even'} digit,{'odd' if odd else 'even'}")
    (own / "metadata.csv").write_text("\n".join(lines) + "\n")
    datasets.make(Data(kind="folder", path=str(own)), SEED, tmp_path / "data")
    found = open_artifact(tmp_path / "data", "data")
    teacher = make_teacher(kind, found, tmp_path)
    assert teacher.json("teacher.json")["classes"] == ["even", "odd"]
    encode.make(Encode(), teacher, found, SEED, "cpu", "no", tmp_path / "e", tmp_path / "latents")
    latents = Latents(open_artifact(tmp_path / "latents", "latents"))
    assert latents.conditioning(torch.arange(12)).tensors["label"].tolist() == [
        ["even", "odd"].index(r["label"]) for r in found.csv("images.csv")
    ]


def test_a_caption_of_two_classes_is_one_line(data: Artifact, tmp_path: Path, one_line: Any) -> None:
    items = itertools.islice(digits.items(Data())[1], 10)
    same = [datasets.Item(item.image, "a digit", item.label) for item in items]
    datasets.write(10, same, Data(), SEED, tmp_path / "data")
    with pytest.raises(UserError) as error:
        encode.make(
            Encode(), make_teacher("edm", data, tmp_path), open_artifact(tmp_path / "data", "data"), SEED, "cpu", "no",
            tmp_path / "e", tmp_path / "latents",
        )  # fmt: skip
    assert "'a digit'" in one_line(error) and "0 or 1 or 2" in str(error.value)


def test_the_loader_is_what_unfinished_work_depends_on(small: Small) -> None:
    assert loader(small.teacher) == f"diffusion.teachers.{'pixel_diffusion' if small.kind == 'edm' else 'mixture'}"


def test_what_a_student_on_pixels_has_to_beat(small: Small, tmp_path: Path) -> None:
    """Of an EDM and of exact teachers: the same four, in pixels."""
    noise.make(6, "floor", small.data, small.latents, SEED, tmp_path / "floor_noise")
    floor_noise = open_artifact(tmp_path / "floor_noise", "noise")
    evaluation = Evaluation(samples=6, block=3, batch_size=2)
    drawn = {}
    for name, own in (("reference", small.noise), ("floor", floor_noise)):
        what = sampling.Evaluated(evaluation, small.teacher, small.latents, own, SEED, "cpu")
        sampling.sample_teacher(what, ODE, 0, 1, tmp_path / "s" / name, tmp_path / name)
        drawn[name] = [open_artifact(tmp_path / name, "samples")]
    given = (
        evaluation,
        config.Statistics(bootstrap=100),
        ["ode_error", "ode_bias", "ode_gain", "ode_scatter"],
        ODE,
        small.data,
    )
    given += (small.teacher, small.latents, small.noise, floor_noise, drawn["reference"], drawn["floor"])
    baselines.make(*given, SEED, "cpu", tmp_path / "baselines")
    found = open_collection(tmp_path / "baselines", "metrics")
    truth = drawn["reference"][0].tensors("latents.safetensors")["latents"].double()
    model, pool = load(small.teacher), Latents(small.latents)
    what = sampling.Evaluated(evaluation, small.teacher, small.latents, small.noise, SEED, "cpu")
    x, cond = model.process.prior(what.initial), pool.conditioning(what.ids)
    t = torch.full((6,), model.process.start, dtype=torch.float64)
    with torch.no_grad():
        guided = model.predict(x, t, cond, ODE.w).x0.double()
        student = students.make_student(model, "full", 0)(x, t, cond).double()
    for name, latents in (("guided_step", guided), ("untrained", student)):
        errors = ((latents - truth) ** 2).flatten(1).mean(1).tolist()
        shown = [float(line["ode_error"]) for line in found[name].csv("per_sample.csv")]
        assert shown == pytest.approx(errors, rel=1e-4), name
        items = found[name].json("metrics.json")["metrics"]
        assert items[0]["dim"] == truth[0].numel() and sum(i["value"] for i in items[1:]) == pytest.approx(
            items[0]["value"]
        )
