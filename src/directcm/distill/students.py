"""Students: a teacher's network under the consistency parameterisation, trained by LoRA or in full."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from directcm.config import lora_rank
from directcm.diffusion.processes import expand
from directcm.diffusion.teachers import Conditioning, Teacher, frozen
from directcm.errors import UserError
from directcm.runtime import compiled, rng
from directcm.runtime.artifacts import Artifact

# As in latent-consistency LoRAs: every attention, feed-forward and convolution layer of the U-Net, and what time does to them. Of a DiT its
# attention, its feed-forward and what time and class do to a block (adaLN).
LORA_LAYERS = (
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
    "conv_shortcut",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
    "time_emb_proj",
    "norm1.linear",
)


class Student:
    """f(x, t) = c_skip(t)·x + c_out(t)·F, unguided; f(x, end) = x exactly (Song et al. 2303.01469, equation 5).

    F is x̂₀ on the VP process (2411.08954) and the EDM network's output on Karras's (Song et al., Appendix C).
    Where no gradient is recorded, the LoRA is merged into the weights (`Merged`): its own forward costs most of another.
    """

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.process = teacher.process
        compiled.blocks(teacher.network)

    @functools.cached_property
    def _merged(self) -> tuple[Merged, Teacher]:
        merged = Merged(self.teacher.network)
        return merged, self.teacher.twin(merged.network)

    @functools.cached_property
    def _has_lora(self) -> bool:
        return bool(_lora_layers(self.teacher.network))

    def changed(self) -> None:
        """To be called after an optimiser's step, which torch's fused optimisers do not count as a change of the weights."""
        if "_merged" in vars(self):
            self._merged[0].built = -1

    def __call__(self, x: Tensor, t: Tensor, cond: Conditioning | None) -> Tensor:
        """f at x (B, …), times t (B,), float32 (B, …)."""
        a, b = self.process.student(t)
        model = self.teacher
        if not torch.is_grad_enabled() and self._has_lora:
            merged, model = self._merged
            merged.refresh()
        return expand(a, x) * x + expand(b, x) * model.predict(x, t, cond, 1.0).x0


def _lora_layers(network: Any) -> dict[str, Any]:
    """A network's LoRA layers by name."""
    from peft.tuners.lora import LoraLayer

    return {name: m for name, m in network.named_modules() if isinstance(m, LoraLayer)}


def share(network: Any) -> Any:
    """A copy of a network that shares its frozen weights and has trainable ones of its own."""
    return copy.deepcopy(network, {id(p): p for p in network.parameters() if not p.requires_grad})


class Merged:
    """A network's twin for forwards without gradient: one weight W + s·B·A for each LoRA layer, all others shared.

    The weights are rebuilt from the frozen W, in float32 and rounded once, whenever A or B have changed. Nothing is merged in
    place, so that no rounding adds up over a training.
    """

    def __init__(self, network: Any) -> None:
        self.source, self.network = network, share(network)
        self.layers = _lora_layers(network)
        self.weights, self.built = [], -1
        for name in self.layers:
            plain = self.network.get_submodule(name).base_layer
            plain.weight = torch.nn.Parameter(torch.empty_like(plain.weight), requires_grad=False)
            parent, _, child = name.rpartition(".")
            setattr(self.network.get_submodule(parent), child, plain)
            self.weights.append(plain.weight)
        compiled.blocks(self.network)
        self.trained = [p for n, p in network.named_parameters() if "lora_" in n]

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the weights and the mode (training or evaluation, for dropout) up to those of the network."""
        # torch counts a tensor's changes in place, but for a fused optimiser's: see Student.changed.
        version = sum(p._version for p in self.trained)
        if version != self.built:
            # Autocast would compute the sum in half precision, and keep its casts of A and B, without gradient, for the student.
            with torch.autocast(self.weights[0].device.type, enabled=False):
                for layer, weight in zip(self.layers.values(), self.weights, strict=True):
                    weight.copy_(_folded_weight(layer))
            self.built = version
        if self.network.training != self.source.training:
            self.network.train(self.source.training)


def _reads_lora(unet: Any) -> bool:
    """Whether diffusers can add and load a LoRA for this class of network; for UNet2DModel it cannot."""
    return hasattr(unet, "load_lora_adapter")


def merged(unet: Any) -> Any:
    """A copy of a network with its LoRA merged: W + B·A replaces W."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    whole = copy.deepcopy(unet)
    for name, module in list(whole.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, child = name.rpartition(".")
            setattr(whole.get_submodule(parent), child, module.get_base_layer())
    return whole


def _folded_weight(layer: Any) -> Tensor:
    """W + s·B·A of a LoRA layer, in its base layer's shape; B of a convolution is 1 × 1."""
    (name,) = layer.active_adapters
    base = layer.base_layer.weight
    first, second = layer.lora_A[name].weight, layer.lora_B[name].weight
    scale = layer.scaling[name]
    return torch.addmm(base.float().flatten(1), second.flatten(1), first.flatten(1), alpha=scale).view_as(base)


@functools.cache
def _folded() -> dict[type, type]:
    """peft's LoRA layer classes → subclasses whose forward uses `_folded_weight`."""
    from peft.tuners.lora.layer import Conv2d, Linear

    class FoldedLinear(Linear):
        def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
            return torch.nn.functional.linear(x, _folded_weight(self), self.base_layer.bias)

    class FoldedConv2d(Conv2d):
        def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
            return self.base_layer._conv_forward(x, _folded_weight(self), self.base_layer.bias)

    return {Linear: FoldedLinear, Conv2d: FoldedConv2d}


def fold(unet: Any) -> None:
    """Make each LoRA layer compute with the single weight W + s·B·A, in place; A and B are trained as before.

    This equals peft's W x + s·B(A x) up to rounding, without its many small operations: a third of a small network's training
    step. Only for float32 weights: in half precision the sum would round the small s·B·A away.
    """
    for module in unet.modules():
        folded = _folded().get(type(module))
        if folded is not None and module.base_layer.weight.dtype == torch.float32:
            # The class is changed, not the instance's forward: a copied network then uses the copy's weights.
            module.__class__ = folded


def adapt(unet: Any, adapter: str, seed: int) -> Any:
    """Make all of a U-Net's weights trainable ("full"), or add a LoRA of rank = alpha ("loraR"), in place.

    LoRA's A is drawn from the training seed and B is 0, so that the student starts as the teacher. Trainable weights are float32,
    whatever the dtype of the frozen ones.
    """
    rank = lora_rank(adapter)
    unet.requires_grad_(rank is None)
    if rank is not None:
        from peft import LoraConfig, inject_adapter_in_model

        settings = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(LORA_LAYERS), init_lora_weights=True)
        if _reads_lora(unet):
            unet.add_adapter(settings)
        else:
            inject_adapter_in_model(settings, unet)
        with torch.no_grad():
            for i, (name, p) in enumerate(sorted(unet.named_parameters())):
                if "lora_A" in name:
                    # peft's initialisation: uniform in ±1/√fan_in (Kaiming with a = √5), here from a keyed generator.
                    bound = p[0].numel() ** -0.5
                    draw = rng.generator(seed, "lora_init", i).uniform(-bound, bound, tuple(p.shape))
                    p.copy_(torch.from_numpy(draw).to(p.dtype))
        fold(unet)
    for p in unet.parameters():
        if p.requires_grad:
            p.data = p.data.float()
    return unet


def make_student(teacher: Teacher, adapter: str, seed: int) -> Student:
    """A student that starts as its teacher, which stays unchanged; with a LoRA the two share the frozen weights."""
    network = teacher.start.network
    copied = copy.deepcopy(network) if lora_rank(adapter) is None else share(network)
    return Student(teacher.start.twin(adapt(copied, adapter, seed)))


def save(unet: Any, adapter: str, folder: Path) -> None:
    """Save in diffusers' format: for `load_lora_weights(folder)`, or for the U-Net's `from_pretrained(folder/unet)`.

    The second if all weights were trained, or if diffusers cannot load the LoRA, which is then merged.
    """
    full = lora_rank(adapter) is None
    if full or not _reads_lora(unet):
        whole = unet if full else merged(unet)
        whole.save_pretrained(folder / "unet", safe_serialization=True)
        return
    from diffusers import StableDiffusionXLPipeline
    from peft.utils import get_peft_model_state_dict

    # With peft's names: convert_state_dict_to_diffusers renames only the attention layers, and of such a mixture diffusers 0.42
    # drops some on loading, with only a warning.
    StableDiffusionXLPipeline.save_lora_weights(
        folder, unet_lora_layers=get_peft_model_state_dict(unet), safe_serialization=True
    )


def snapshot_folder(step: int) -> str:
    """Where a student's artefact holds its weights after an optimiser step."""
    return f"snapshots/step~{step}"


def load(teacher: Teacher, student: Artifact, step: int | None = None) -> Student:
    """A saved student on a copy of its teacher, frozen; `step`: after that optimiser step (None: the last)."""
    from safetensors.torch import load_file

    about = student.json("student.json")
    folder = ""
    if step is not None and step != about["run"]["steps"]:
        folder = snapshot_folder(step) + "/"
        if step not in about["snapshots"]:
            raise UserError(f"{student.folder}: has no snapshot of step {step}; train it again with this snapshot")
    start = teacher.start
    if student.files(f"{folder}unet/"):
        kind = start.network.dtype
        return Student(start.twin(frozen(type(start.network), student.folder / folder / "unet", teacher.device, kind)))
    unet = share(start.network)
    state = load_file(student.file(f"{folder}pytorch_lora_weights.safetensors"))
    unet.load_lora_adapter(state, prefix="unet")
    loaded = sum("lora_" in name for name in unet.state_dict())
    if loaded != len(state):
        raise UserError(
            f"{student.folder}: {loaded} of {len(state)} LoRA weights fit this teacher; it was distilled from another"
        )
    fold(unet)
    return Student(start.twin(unet.requires_grad_(False).eval().to(teacher.device)))
