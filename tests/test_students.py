"""Students: the boundary, LoRA and full weights, and that stock diffusers reads what is saved."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from directcm.diffusion.processes import VariancePreserving
from directcm.diffusion.teachers import Conditioning, Gaussian, load
from directcm.distill import students
from directcm.errors import UserError
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, new_artifact, open_artifact, write_json


def cond(rows: int = 3) -> Conditioning:
    return Conditioning(
        {
            "prompt_embeds": rng.normal(0, "embeds", range(rows), (8, 48)),
            "pooled": rng.normal(0, "pooled", range(rows), (32,)),
        }
    )


def points(rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    return rng.normal(0, "x", range(rows), (4, 8, 8)), torch.tensor([1000.0, 400.0, 20.0])[:rows]


def shake(unet: torch.nn.Module) -> None:
    """Give the free weights values that matter."""
    with torch.no_grad():
        for i, p in enumerate(p for p in unet.parameters() if p.requires_grad):
            p.add_(0.05 * rng.normal(1, "shake", [i], tuple(p.shape))[0])


def write(tiny: Any, student: students.Student, adapter: str, out: Path) -> Artifact:
    with new_artifact(out, "student", settings={}, inputs={"teacher": tiny.teacher}) as art:
        students.save(student.teacher.network, adapter, art.path)
        write_json(art / "student.json", {"run": {"adapter": adapter, "steps": 4}, "snapshots": []})
    return open_artifact(out, "student")


def loras(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {re.sub(r"\.default(_\d+)?\.weight", "", k): v for k, v in module.state_dict().items() if "lora_" in k}


def test_the_end_is_the_identity(tiny: Any) -> None:
    student = students.make_student(load(tiny.teacher), "lora4", 0)
    shake(student.teacher.network)
    x, _ = points()
    with torch.no_grad():
        assert torch.equal(student(x, torch.zeros(3), cond()), x)


def test_formula_by_hand() -> None:
    teacher = Gaussian(VariancePreserving.scaled_linear(), torch.tensor([1.0, -1.0]), 0.5)
    student = students.Student(teacher)
    x = torch.tensor([[0.3, 0.4], [1.0, 2.0]])
    t = torch.tensor([1.0, 700.0])
    got = student(x, t, None)
    for i, k in enumerate((1, 700)):
        abar = float(torch.cumprod(1 - teacher.process.betas, 0)[k - 1])
        eps = (1 - abar) ** 0.5 * (x[i] - abar**0.5 * teacher.mean) / (abar * 0.25 + 1 - abar)
        x0 = (x[i] - (1 - abar) ** 0.5 * eps) / abar**0.5
        scaled = (10.0 * k) ** 2 + 0.25
        torch.testing.assert_close(got[i], 0.25 / scaled * x[i] + 10 * k / scaled**0.5 * x0, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("adapter", ["lora4", "full"])
def test_an_untrained_student_is_the_teachers_one_step(tiny: Any, adapter: str) -> None:
    teacher = load(tiny.teacher)
    student = students.make_student(teacher, adapter, 0)
    x, t = points()
    c_skip, c_out = (c.float().reshape(-1, 1, 1, 1) for c in teacher.process.boundary(t))
    with torch.no_grad():
        expected = c_skip * x + c_out * teacher.predict(x, t, cond(), 1.0).x0
        torch.testing.assert_close(student(x, t, cond()), expected, rtol=1e-6, atol=1e-6)


def test_the_teacher_stays_as_it_is(tiny: Any) -> None:
    teacher = load(tiny.teacher)
    before = {k: v.clone() for k, v in teacher.network.state_dict().items()}
    student = students.make_student(teacher, "full", 0)
    shake(student.teacher.network)
    student(points()[0], points()[1], cond())
    assert teacher.rows_evaluated == 0 and student.teacher.rows_evaluated == 3
    after = teacher.network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(v, after[k]) for k, v in before.items())
    assert not any(p.requires_grad for p in teacher.network.parameters())


def test_what_is_free(tiny: Any) -> None:
    teacher = load(tiny.teacher)
    lora = students.make_student(teacher, "lora4", 0).teacher.network
    free = {n for n, p in lora.named_parameters() if p.requires_grad}
    assert free and all("lora_" in n for n in free)
    adapted = {n.split(".lora_")[0] for n in free}
    # Every layer kind of the list that this U-Net has, attention included.
    for kind in (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
        "proj_in",
        "proj_out",
        "ff.net.0.proj",
        "ff.net.2",
        "conv1",
        "conv2",
        "time_emb_proj",
    ):
        assert any(n.endswith(kind) for n in adapted), kind
    for name, p in lora.named_parameters():
        if "lora_A" in name:
            # Uniform in ±1/√fan_in: of sixty-four numbers or more the largest is near that, and the mean square a third of its square.
            bound, drawn = p[0].numel() ** -0.5, p.detach().double()
            assert p.shape[0] == 4 and bound / 2 < float(drawn.abs().max()) <= bound
            assert float((drawn**2).mean()) == pytest.approx(bound**2 / 3, rel=5 / p.numel() ** 0.5)
        if "lora_B" in name:
            assert not p.detach().any()
    full = students.make_student(teacher, "full", 0).teacher.network
    assert all(p.requires_grad for p in full.parameters())


def test_seeds_give_other_starts_and_the_same_one_again(tiny: Any) -> None:
    teacher = load(tiny.teacher)
    a, b, again = (loras(students.make_student(teacher, "lora4", s).teacher.network) for s in (0, 1, 0))
    assert all(torch.equal(v, again[k]) for k, v in a.items())
    assert not any(torch.equal(v, b[k]) for k, v in a.items() if "lora_A" in k)
    # No two layers of one shape start alike.
    firsts = [v for k, v in a.items() if "lora_A" in k]
    assert not any(x.shape == y.shape and torch.equal(x, y) for i, x in enumerate(firsts) for y in firsts[:i])


def test_trainable_weights_are_float32(tiny: Any) -> None:
    for adapter in ("lora4", "full"):
        unet = students.make_student(load(tiny.teacher, precision="bf16"), adapter, 0).teacher.network
        assert {p.dtype for p in unet.parameters() if p.requires_grad} == {torch.float32}


def test_folded_layers_are_pefts(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs and the gradients of A and B, as peft computes them."""
    x, t = points()
    found = []
    for folded in (False, True):
        if not folded:
            monkeypatch.setattr(students, "fold", lambda unet: None)
        student = students.make_student(load(tiny.teacher), "lora4", 0)
        monkeypatch.undo()
        unet = student.teacher.network
        shake(unet)
        kinds = {type(m).__name__ for m in unet.modules() if hasattr(m, "lora_A")}
        assert kinds == ({"FoldedLinear", "FoldedConv2d"} if folded else {"Linear", "Conv2d"})
        out = student(x, t, cond())
        out.pow(2).sum().backward()
        found.append((out.detach(), {n: p.grad for n, p in unet.named_parameters() if p.requires_grad}))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=1e-5)
    # Some gradients are 0 but for rounding: what comes before a group norm.
    size = torch.cat([g.flatten() for g in found[0][1].values()]).norm()
    for name, own in found[0][1].items():
        assert float((found[1][1][name] - own).norm()) < 1e-6 * float(size) + 1e-4 * float(own.norm()), name
    # A copy has weights of its own.
    twin = student.teacher.twin()
    with torch.no_grad():
        before = student(x, t, cond())
        for p in twin.network.parameters():
            p.zero_()
        assert torch.equal(student(x, t, cond()), before)


def test_half_precision_keeps_pefts_layers(tiny: Any) -> None:
    network = students.make_student(load(tiny.teacher, precision="bf16"), "lora4", 0).teacher.network
    assert {type(m).__name__ for m in network.modules() if hasattr(m, "lora_A")} == {"Linear", "Conv2d"}


@pytest.mark.parametrize("adapter", ["lora", "lora0", "lora-4", "LoRA4", "half", "lora4x"])
def test_adapters_that_are_none(tiny: Any, adapter: str, one_line: Any) -> None:
    with pytest.raises(UserError) as error:
        students.make_student(load(tiny.teacher), adapter, 0)
    assert adapter in one_line(error)


def test_stock_diffusers_reads_the_lora(tiny: Any, tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline

    student = students.make_student(load(tiny.teacher), "lora4", 0)
    shake(student.teacher.network)
    art = write(tiny, student, "lora4", tmp_path / "student")
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny.teacher.folder, local_files_only=True)
    plain = eps(pipe.unet)
    pipe.load_lora_weights(art.folder)
    trained, theirs = loras(student.teacher.network), loras(pipe.unet)
    assert trained.keys() == theirs.keys() and len(trained) > 50
    assert any("attn2.to_q" in k for k in trained) and any("to_out.0" in k for k in trained)
    for name, value in trained.items():
        assert torch.equal(value, theirs[name]), name
    mine = eps(student.teacher.network)
    torch.testing.assert_close(eps(pipe.unet), mine, rtol=0, atol=1e-5)
    assert float((plain - mine).abs().max()) > 1e-2


@torch.no_grad()
def eps(unet: torch.nn.Module) -> torch.Tensor:
    x, t = points()
    unet.eval()
    added = {
        "text_embeds": cond().tensors["pooled"],
        "time_ids": torch.tensor([[16.0, 16, 0, 0, 16, 16]]).expand(3, -1),
    }
    return unet(x, t - 1, encoder_hidden_states=cond().tensors["prompt_embeds"], added_cond_kwargs=added).sample


@pytest.mark.parametrize("adapter", ["lora4", "full"])
def test_saved_and_loaded_students_are_the_same(tiny: Any, tmp_path: Path, adapter: str) -> None:
    student = students.make_student(load(tiny.teacher), adapter, 0)
    shake(student.teacher.network)
    art = write(tiny, student, adapter, tmp_path / "student")
    again = students.load(load(tiny.teacher), art)
    x, t = points()
    student.teacher.network.eval()
    with torch.no_grad():
        torch.testing.assert_close(again(x, t, cond()), student(x, t, cond()), rtol=1e-5, atol=1e-5)
    assert not any(p.requires_grad for p in again.teacher.network.parameters())
    if adapter == "full":
        from diffusers import UNet2DConditionModel

        stock = UNet2DConditionModel.from_pretrained(art.folder, subfolder="unet", local_files_only=True)
        torch.testing.assert_close(eps(stock), eps(student.teacher.network), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["lora4", "full"])
def test_a_student_as_it_was_after_a_step(tiny: Any, tmp_path: Path, adapter: str, one_line: Any) -> None:
    art = tiny.train(tmp_path / "s", "direct_cm", adapter=adapter, snapshots=[1, 3], lr=1e-2)
    short = {s: tiny.train(tmp_path / f"{s}", "direct_cm", adapter=adapter, steps=s, lr=1e-2) for s in (1, 3)}
    short[4] = art
    teacher = load(tiny.teacher)
    outputs = {}
    for step, expected in short.items():
        got = students.load(teacher, art, step).teacher.network.state_dict()
        want = students.load(teacher, expected).teacher.network.state_dict()
        assert got.keys() == want.keys() and all(torch.equal(v, want[k]) for k, v in got.items()), step
        with torch.no_grad():
            outputs[step] = students.load(teacher, art, step)(*points(), cond())
    assert not torch.equal(outputs[1], outputs[3]) and not torch.equal(outputs[3], outputs[4])
    for step in (2, 5, 0):
        with pytest.raises(UserError) as error:
            students.load(teacher, art, step)
        assert f"no snapshot of step {step};" in one_line(error) and str(art.folder) in str(error.value)


@pytest.mark.parametrize("adapter", ["lora4", "full"])
def test_a_damaged_snapshot_is_a_users_line_and_the_finished_student_is_not(
    tiny: Any, tmp_path: Path, adapter: str, one_line: Any
) -> None:
    art = tiny.train(tmp_path / "s", "direct_cm", adapter=adapter, snapshots=[1])
    (path,) = (art.folder / "snapshots" / "step~1").rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    students.load(load(tiny.teacher), open_artifact(art.folder, "student"))
    with pytest.raises(UserError) as error:
        students.load(load(tiny.teacher), open_artifact(art.folder, "student"), 1)
    assert str(path) in one_line(error)


@pytest.mark.parametrize("adapter", ["lora4", "full"])
def test_loading_leaves_the_teacher_as_it_is(tiny: Any, tmp_path: Path, adapter: str) -> None:
    """One teacher is loaded with many students in turn: none may see the one before, nor the teacher change."""
    trained = tiny.train(tmp_path / "s", "direct_cm", adapter=adapter, snapshots=[1], lr=1e-2)
    teacher = load(tiny.teacher)
    network, before = teacher.network, {k: v.clone() for k, v in teacher.network.state_dict().items()}
    with torch.no_grad():
        alone = teacher.predict(*points(), cond(), 3.0).eps
        first = students.load(teacher, trained)
        expected = first(*points(), cond())
        second = students.load(teacher, trained, 1)
        other = students.load(teacher, tiny.cm)
        for student in (second, other):
            assert student.teacher is not teacher and student.teacher.network is not network
            assert not torch.equal(student(*points(), cond()), expected)
        assert torch.equal(first(*points(), cond()), expected)
        assert torch.equal(teacher.predict(*points(), cond(), 3.0).eps, alone)
    assert teacher.network is network and not loras(network)
    after = network.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(v, after[k]) for k, v in before.items())
    # Two predictions of three rows with guidance: what students do is counted elsewhere.
    assert teacher.rows_evaluated == 12


def test_a_lora_of_another_teacher_is_refused(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    from safetensors.torch import load_file, save_file

    student = students.make_student(load(tiny.teacher), "lora4", 0)
    folder = tmp_path / "raw"
    folder.mkdir()
    students.save(student.teacher.network, "lora4", folder)
    state = load_file(folder / "pytorch_lora_weights.safetensors")
    renamed = {k.replace("down_blocks.0", "down_blocks.7"): v for k, v in state.items()}
    assert renamed.keys() != state.keys()
    with new_artifact(tmp_path / "student", "student", settings={}) as art:
        save_file(renamed, art / "pytorch_lora_weights.safetensors", {"format": "pt"})
        write_json(art / "student.json", {"run": {"adapter": "lora4", "steps": 4}, "snapshots": []})
    with pytest.raises(UserError) as error:
        students.load(load(tiny.teacher), open_artifact(tmp_path / "student", "student"))
    assert "distilled from another" in one_line(error)


def damaged(tiny: Any, folder: Path, adapter: str, name: str) -> Artifact:
    student = students.make_student(load(tiny.teacher), adapter, 0)
    art = write(tiny, student, adapter, folder)
    path = art.folder / name
    path.write_bytes(path.read_bytes()[:-100])
    return open_artifact(art.folder, "student")


def test_damaged_lora_is_a_users_line(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    art = damaged(tiny, tmp_path / "s", "lora4", "pytorch_lora_weights.safetensors")
    with pytest.raises(UserError) as error:
        students.load(load(tiny.teacher), art)
    assert "pytorch_lora_weights.safetensors" in one_line(error)


def test_damaged_full_weights_are_a_users_line(tiny: Any, tmp_path: Path, one_line: Any) -> None:
    art = damaged(tiny, tmp_path / "s", "full", "unet/diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError) as error:
        students.load(load(tiny.teacher), art)
    assert "diffusion_pytorch_model.safetensors" in one_line(error)


def test_trained_student_differs_from_its_start(tiny: Any) -> None:
    trained = students.load(load(tiny.teacher), tiny.cm)
    assert any(v.any() for k, v in loras(trained.teacher.network).items() if "lora_B" in k)
    assert json.loads((tiny.cm.folder / "student.json").read_text())["run"]["method"] == "cm"


def test_without_gradient_the_lora_is_merged_and_follows_every_change(tiny: Any) -> None:
    """Merged weights give the bytes of the layers that fold theirs, after fused steps, copies and EMAs alike."""
    student = students.make_student(load(tiny.teacher), "lora4", 0)
    network = student.teacher.network
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, fused=True)

    def same() -> torch.Tensor:
        with torch.no_grad():
            merged = student(*points(), cond())
        assert torch.equal(merged, student(*points(), cond()).detach())
        return merged

    seen = [same()]
    for p in trained:
        p.grad = torch.ones_like(p)
    optimizer.step()
    student.changed()
    seen.append(same())
    with torch.no_grad():
        trained[1].copy_(torch.randn(trained[1].shape, generator=torch.Generator().manual_seed(0)))
    seen.append(same())
    with torch.no_grad():
        torch._foreach_lerp_(trained, [torch.zeros_like(p) for p in trained], 0.5)
    seen.append(same())
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(seen))


def test_a_lora_student_shares_the_frozen_weights(tiny: Any) -> None:
    teacher = load(tiny.teacher)
    frozen = {p.data_ptr() for p in teacher.network.parameters()}
    student = students.make_student(teacher, "lora4", 0)
    own = [p for p in student.teacher.network.parameters() if p.data_ptr() not in frozen]
    assert own and all(p.requires_grad for p in own)
    with torch.no_grad():
        student(*points(), cond())
    layers = students._lora_layers(student.teacher.network)
    merged = student._merged[0].network
    assert sum(p.data_ptr() not in frozen for p in merged.parameters()) == len(layers)
    assert not any(
        p.data_ptr() in frozen for p in students.make_student(teacher, "full", 0).teacher.network.parameters()
    )


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 0.05), (torch.bfloat16, 0.5)])
def test_merged_in_half_precision(tiny: Any, dtype: torch.dtype, bound: float) -> None:
    """What the LoRA changes of the output, merged and unmerged; bfloat16 rounds a small change away, its bound says how much."""
    teacher = load(tiny.teacher)
    teacher.network.to(dtype)
    student = students.make_student(teacher, "lora4", 0)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in student.teacher.network.named_parameters():
            if "lora_B" in name:
                p.copy_(0.02 * torch.randn(p.shape, generator=draw))
    with torch.autocast("cpu", dtype=dtype), torch.no_grad():
        x, t = points()
        plain = teacher.predict(x, t, cond()).x0
        apart = student.teacher.predict(x, t, cond()).x0
        student(x, t, cond())
        merged = student._merged[1].predict(x, t, cond()).x0
    assert (apart - plain).norm() > 0.01 * plain.norm(), "the LoRA changes the output"
    assert (merged - apart).norm() <= bound * (apart - plain).norm()


def test_under_autocast_merged_weights_are_rounded_once_and_gradients_arrive(tiny: Any) -> None:
    """A CM's step in half precision: the target first, without gradient, then the student in the same context."""
    teacher = load(tiny.teacher)
    teacher.network.to(torch.bfloat16)
    student = students.make_student(teacher, "lora4", 0)
    for name, p in student.teacher.network.named_parameters():
        if "lora_B" in name:
            p.data.fill_(0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.no_grad():
            target = student(*points(), cond())
        (student(*points(), cond()) - target - 1).square().mean().backward()
    merged = student._merged[0]
    for layer, weight in zip(merged.layers.values(), merged.weights, strict=True):
        assert torch.equal(weight, students._folded_weight(layer).to(torch.bfloat16))
    for name, p in student.teacher.network.named_parameters():
        assert "lora" not in name or bool(p.grad.abs().sum() > 0), name
