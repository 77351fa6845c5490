"""The DiT teacher, and teachers on pixels that are told no class: from the images to students' samples, and what diffusers' class leaves open."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from directcm import datasets
from directcm.analysis.pages.cards import card
from directcm.config import (
    Config,
    Data,
    Dit,
    Edm,
    Encode,
    Evaluation,
    Ode,
    PixelDit,
    Process,
    Run,
    Targets,
    Train,
    parse,
)
from directcm.config.specs import TEACHERS
from directcm.datasets import digits
from directcm.diffusion.processes import VarianceExploding
from directcm.diffusion.teachers import Conditioning, dit, edm, load, load_codec
from directcm.diffusion.teachers.codec import to_tensor
from directcm.diffusion.teachers.dit import DitDiffusion, make_dit
from directcm.diffusion.teachers.pixel_diffusion import NO_CLASS
from directcm.distill import encode, noise, students, targets, training
from directcm.distill.encode import Latents
from directcm.errors import UserError
from directcm.evaluation import sampling
from directcm.runtime import rng
from directcm.runtime.artifacts import open_artifact

SEED, KARRAS = 24, Process(kind="karras")
ODE = Ode(solver="heun", N=4, w=1.0)
# A last layer at zero hands nothing on to a LoRA: the teacher has to have learnt a little, and without an average.
SMALL = {
    "transformer": {"patch": 4, "width": 32, "layers": 2, "heads": 2},
    "steps": 10, "batch_size": 8, "warm_up": 1, "lr": 1e-2, "ema": 0,
}  # fmt: skip
UNET = {"unet": {"channels": [16, 16]}, "steps": 6, "batch_size": 8}
# What is made: the module, its settings, and whether it is told classes.
KINDS = {
    "dit": (dit, parse(Dit, SMALL)),
    "dit without classes": (dit, parse(Dit, {**SMALL, "conditional": False})),
    "edm without classes": (edm, parse(Edm, {**UNET, "conditional": False})),
}


def run_of(method: str, adapter: str) -> Run:
    return Run(
        method=method, solver="heun", N=4, w=1.0, adapter=adapter, loss="mse", lr=1e-3, batch_size=4, pool=8, steps=4, seed=0
    )  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Artefacts of a kind: data of 24 digits (without labels where none is told), teacher, latents, noise, targets, students, samples."""
    root = tmp_path_factory.mktemp(request.param.replace(" ", "_"))
    module, settings = KINDS[request.param]
    told = settings.conditional
    some = [
        datasets.Item(item.image, item.text if told else "a digit", item.label if told else "")
        for item in itertools.islice(digits.items(Data())[1], 24)
    ]
    datasets.write(24, some, Data(), SEED, root / "data")
    s = SimpleNamespace(told=told, root=root, data=open_artifact(root / "data", "data"), module=module)
    module.make(settings, KARRAS, s.data, SEED, root / "scratch", root / "teacher")
    s.teacher = open_artifact(root / "teacher", "teacher").verify()
    encode.make(Encode(batch_size=16), s.teacher, s.data, SEED, "cpu", "no", root / "e", root / "latents")
    s.latents = open_artifact(root / "latents", "latents")
    noise.make(4, "evaluation", s.data, s.latents, SEED, root / "noise")
    s.noise = open_artifact(root / "noise", "noise")
    targets.make(
        Targets(shard=8, block=8, batch_size=8), ODE, 0, s.teacher, s.latents, SEED, "cpu", "no", root / "t", root / "targets"
    )  # fmt: skip
    s.students = {}
    for method, adapter in (("cm", "lora2"), ("direct_cm", "full"), ("direct_cm", "lora2")):
        name = f"{method}-{adapter}"
        solved = [open_artifact(root / "targets", "targets")] if method == "direct_cm" else []
        training.make(
            run_of(method, adapter), Train(checkpoint_every=2), [2], s.teacher, s.latents, solved, SEED, root / f"s-{name}", None, root / name
        )  # fmt: skip
        s.students[name] = open_artifact(root / name, "student").verify()
    s.what = sampling.Evaluated(
        Evaluation(samples=4, block=4, batch_size=4), s.teacher, s.latents, s.noise, SEED, "cpu"
    )
    return s


def conditioning(small: SimpleNamespace) -> Conditioning:
    return Conditioning({"label": torch.tensor([0, 4, NO_CLASS] if small.told else [NO_CLASS] * 3)})


def test_what_the_teacher_is_told(small: SimpleNamespace) -> None:
    teacher, codec = load(small.teacher), load_codec(small.teacher)
    classes = small.teacher.json("teacher.json")["classes"]
    rows = small.data.csv("images.csv")
    assert classes == (sorted({row["label"] for row in rows}) if small.told else [])
    assert teacher.none == len(classes) and ("conditional" in small.teacher.settings) != small.told
    labels = Latents(small.latents).conditioning(torch.arange(24)).tensors["label"].tolist()
    assert labels == ([classes.index(row["label"]) for row in rows] if small.told else [NO_CLASS] * 24)
    x, t = rng.normal(0, "x", range(2), (3, 16, 16)), torch.tensor([0.5, 2.0], dtype=torch.float64)
    if not small.told:
        # Whatever the label, and with no conditioning at all.
        some = codec.condition(["a", "b"], ["", "cat"])
        assert torch.equal(teacher.noise(x, t, some), teacher.noise(x, t, None))


def test_samples_of_teacher_and_students(small: SimpleNamespace) -> None:
    sampling.sample_teacher(small.what, ODE, 0, 1, small.root / "s1", small.root / "reference")
    reference = open_artifact(small.root / "reference", "samples")
    for name, student in small.students.items():
        out = small.root / f"samples-{name}"
        sampling.sample_students(small.what, ODE, student, [(4, 1), (2, 2)], small.root / f"s-s-{name}", out)
        made = open_artifact(out / sampling.set_name(4, 1), "samples")
        pixels = made.tensors("latents.safetensors")["latents"]
        shown = to_tensor([Image.open(made.file(f"images/{i:05d}.png")) for i in range(4)])
        assert float((pixels.clamp(-1, 1) - shown).abs().max()) <= 1 / 255 + 1e-6
        assert not torch.equal(pixels, reference.tensors("latents.safetensors")["latents"])


@pytest.mark.parametrize("name", ["cm-lora2", "direct_cm-full", "direct_cm-lora2"])
def test_stock_diffusers_reads_a_student(small: SimpleNamespace, name: str) -> None:
    """By the class that the card names, and by the formulas written out: F = network(x/√(t² + σ_d²), 250·ln t, class)."""
    import diffusers

    kind = TEACHERS["dit" if small.module is dit else "edm"].network
    student = small.students[name]
    text = card(student, small.teacher, small.data, [])
    assert f'unet = {kind}.from_pretrained("<this folder>", subfolder="unet")' in text
    assert ("the classes in order, the last is none" in text) == small.told == ("it knows no class" not in text)
    network = getattr(diffusers, kind).from_pretrained(student.folder / "unet")
    teacher = load(small.teacher)
    cond, t = conditioning(small), 80.0
    label = cond.tensors["label"]
    x = t * rng.normal(6, "x", range(3), (3, 16, 16))
    total, off = t**2 + 0.25, t - 0.002
    with torch.no_grad():
        told = torch.full((3,), 250 * torch.log(torch.tensor(t)).item())
        f = network(x / total**0.5, told, class_labels=torch.where(label == NO_CLASS, teacher.none, label)).sample
        own = 0.25 / (off**2 + 0.25) * x + 0.5 * off / total**0.5 * f
        got = students.load(teacher, student)(x, torch.full((3,), t, dtype=torch.float64), cond)
        before = students.make_student(teacher, "full", 0)(x, torch.full((3,), t, dtype=torch.float64), cond)
        at_end = students.load(teacher, student)(x, torch.full((3,), 0.002, dtype=torch.float64), cond)
    torch.testing.assert_close(got, own, rtol=1e-4, atol=1e-4)
    assert torch.equal(at_end, x)
    assert float((got - before).abs().max()) > 1e-5


# ----------------------------------------------------------------- what diffusers' class leaves open


def network(classes: int = 3, layers: int = 2) -> Any:
    torch.manual_seed(0)
    return make_dit(PixelDit(patch=4, width=32, layers=layers, heads=2), 16, classes)


def shaken(made: Any) -> Any:
    """The same with no weight at zero."""
    with torch.no_grad():
        for i, p in enumerate(made.parameters()):
            p.add_(0.1 * rng.normal(1, "shake", [i], tuple(p.shape))[0])
    return made


def test_it_starts_as_the_paper_says() -> None:
    """adaLN-Zero: each block is the identity, and F is 0, so that D = c_skip·x."""
    made = network()
    hidden, t, label = rng.normal(0, "h", range(2), (16, 32)), torch.tensor([3.0, -700.0]), torch.tensor([0, 2])
    with torch.no_grad():
        for block in made.transformer_blocks:
            assert torch.equal(block(hidden, timestep=t, class_labels=label), hidden)
        x = rng.normal(0, "x", range(2), (3, 16, 16))
        assert made(x, t, class_labels=label).sample.abs().max() == 0
    embedding = made.transformer_blocks[0].norm1.emb
    table = embedding.class_embedder.embedding_table.weight.detach()
    assert table.shape == (4, 32) and float(table.std()) == pytest.approx(0.02, rel=0.3)
    assert float(embedding.timestep_embedder.linear_1.weight.detach().std()) == pytest.approx(0.02, rel=0.1)
    # Xavier's uniform ends at √(6/(in + out)); a patch is 3·4·4 numbers.
    for weight, fans in ((made.transformer_blocks[0].attn1.to_q.weight, 64), (made.pos_embed.proj.weight, 48 + 32)):
        assert float(weight.detach().abs().max()) == pytest.approx((6 / fans) ** 0.5, rel=0.05)
    assert all(
        float(p.detach().abs().max()) == 0
        for n, p in made.named_parameters()
        if n.endswith("bias") and "norm1.emb" not in n
    )


def test_labels_are_never_dropped_by_the_network_itself() -> None:
    """diffusers' class drops one in ten of them in training mode, from torch's global generator: also in a student's or an average's copy."""
    made = shaken(network())
    assert made.transformer_blocks[0].norm1.emb.class_embedder.dropout_prob == 0.1
    teacher = DitDiffusion(made, VarianceExploding(sigma_data=0.5))
    x, t = rng.normal(0, "x", range(64), (3, 16, 16)), torch.full((64,), 0.7, dtype=torch.float64)
    cond = Conditioning({"label": torch.zeros(64, dtype=torch.int64)})
    other = shaken(network())
    for one in (teacher, teacher.twin(), teacher.twin(other), students.make_student(teacher, "full", 0).teacher):
        with torch.no_grad():
            still = one.network.eval() and one.noise(x, t, cond)
            drawn = torch.get_rng_state()
            assert torch.equal(one.network.train() and one.noise(x, t, cond), still)
            assert torch.equal(torch.get_rng_state(), drawn)


def test_no_class_is_a_row_of_its_own_and_times_are_told_in_full() -> None:
    process = VarianceExploding(sigma_data=0.5)
    teacher = DitDiffusion(shaken(network()).eval(), process)
    x = rng.normal(0, "x", range(4), (3, 16, 16))
    t = torch.full((4,), 0.7, dtype=torch.float64)
    with torch.no_grad():
        by_label = teacher.noise(
            x[:1].repeat(4, 1, 1, 1), t, Conditioning({"label": torch.tensor([0, 1, 2, NO_CLASS])})
        )
        assert all(float((a - b).abs().max()) > 1e-4 for a, b in itertools.combinations(by_label, 2))
        torch.testing.assert_close(by_label[3], teacher.noise(x[:1], t[:1], None)[0], rtol=1e-4, atol=1e-4)
        # 250·ln t, not rounded: a step of one in a thousand is seen, and negative times are other ones than positive.
        emb = teacher.network.transformer_blocks[0].norm1.emb.time_proj
        told = process.network_time(torch.tensor([0.5, 0.5005, 2.0], dtype=torch.float64)).float()
        assert told.tolist() == pytest.approx([-173.287, -173.037, 173.287], abs=1e-3)
        low, near, high = emb(told)
        assert float((low - near).abs().max()) > 0.1 and float((low - high).abs().max()) > 0.5
        # By hand: the slowest of 128 frequencies is 1/10000, the fastest 1; cosines come first.
        assert float(low[0]) == pytest.approx(float(torch.cos(told[0])), abs=1e-4)
        assert float(low[255]) == pytest.approx(float(torch.sin(told[0] / 10000)), abs=1e-5)


def test_guidance_in_one_forward() -> None:
    teacher = DitDiffusion(shaken(network()).eval(), VarianceExploding(sigma_data=0.5))
    x, t = rng.normal(0, "x", range(3), (3, 16, 16)), torch.tensor([0.1, 2.0, 40.0], dtype=torch.float64)
    cond = Conditioning({"label": torch.tensor([0, 1, 2])})
    with torch.no_grad():
        with_, without = teacher.noise(x, t, cond), teacher.noise(x, t, None)
        torch.testing.assert_close(
            teacher.predict(x, t, cond, 3.0).eps, without + 3 * (with_ - without), rtol=1e-4, atol=1e-4
        )


def test_which_layers_a_lora_has() -> None:
    """Attention, feed-forward, and what time and class do to each block; not the patches, the last layer or the embeddings."""
    made = students.adapt(network(layers=3), "lora2", 0)
    free = {name.split(".lora_")[0] for name, p in made.named_parameters() if p.requires_grad}
    within = {"attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2", "norm1.linear"}
    assert free == {f"transformer_blocks.{i}.{layer}" for i in range(3) for layer in within}
    # Of the U-Nets no layer bears that name: their LoRAs are what they were.
    from directcm.diffusion.teachers.pixel_diffusion import make_unet

    unet = make_unet(parse(Edm, UNET).unet, 16, 3)
    assert not [name for name, _ in unet.named_modules() if name.endswith("norm1.linear")]


def test_gradient_checkpointing_changes_nothing() -> None:
    made = shaken(network()).train()
    DitDiffusion(made, VarianceExploding(sigma_data=0.5))
    x, t, label = rng.normal(0, "x", range(2), (3, 16, 16)), torch.tensor([3.0, -700.0]), torch.tensor([0, 3])
    found = []
    for again in (False, True):
        (made.enable_gradient_checkpointing if again else made.disable_gradient_checkpointing)()
        made.zero_grad()
        made(x, t, class_labels=label).sample.square().mean().backward()
        found.append([p.grad.clone() for p in made.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 20
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_it_learns(tmp_path: Path) -> None:
    """Twenty digits of one class: half of the loss at the start is gone in forty steps. Dropout is training's alone."""
    some = [item for item in itertools.islice(digits.items(Data(resolution=8))[1], 300) if item.label == "1"][:20]
    datasets.write(20, some, Data(resolution=8), SEED, tmp_path / "data")
    data = open_artifact(tmp_path / "data", "data")
    settings = parse(
        Dit,
        {
            "transformer": {"patch": 2, "width": 32, "layers": 1, "heads": 2},
            "steps": 60,
            "batch_size": 32,
            "warm_up": 5,
            "lr": 5e-3,
            "dropout": 0.1,
        },
    )
    dit.make(settings, KARRAS, data, SEED, tmp_path / "s", tmp_path / "teacher")
    made = open_artifact(tmp_path / "teacher", "teacher")
    curve = [float(row["loss"]) for row in made.csv("curve.csv")]
    assert sum(curve[-20:]) < 0.7 * sum(curve[:20]), curve
    assert load(made).network.config.dropout == 0
    again = dit.make(settings, KARRAS, data, SEED, tmp_path / "s2", tmp_path / "again")
    assert again is None and open_artifact(tmp_path / "again", "teacher").fingerprint == made.fingerprint


# ----------------------------------------------------------------- its place in the configuration


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"transformer": {"patch": 3}}, "teacher.dit.transformer.patch = 3 does not divide data.resolution = 16"),
        ({"transformer": {"width": 30}}, "width"),
        ({"transformer": {"width": 32, "heads": 3}}, "width = 32 is not a multiple of heads = 3"),
        ({"unet": {}}, "teacher.dit.unet: unknown key"),
    ],
)
def test_what_its_block_asks(settings: dict[str, Any], words: str, one_line: Any) -> None:
    pixels = {"process": {"kind": "karras"}, "ode": {"N": 18}, "students": [{}]}
    with pytest.raises(UserError) as error:
        parse(Config, {**pixels, "teacher": {"kind": "dit", "dit": settings}})
    assert words in one_line(error)
    with pytest.raises(UserError) as error:
        parse(Config, {"teacher": {"kind": "dit"}})
    assert "process.kind is vp, but teacher.kind dit needs karras" in one_line(error)
    assert "dit" not in Config().model_dump(mode="json")["teacher"]
    assert parse(Config, {**pixels, "teacher": {"kind": "dit"}}).latent() == (3, 16)
