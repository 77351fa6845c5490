"""The small CLIP of a run: image and text towers trained on the run's own captioned images, and a quality head on them.

Loss: InfoNCE (Radford et al. 2021) over the distinct captions of a batch, so that images that bear the same caption are
positives of it and never negatives of each other. The head (Schuhmann's form) then learns, on frozen embeddings, how
little an image has been degraded: 10 for a real one, 0 for one that is blurred and drowned in noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from directcm.config import ClipTiny
from directcm.errors import UserError
from directcm.evaluation.metrics.quality import QualityHead, head_from_state
from directcm.evaluation.metrics.samples import open_image
from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, new_artifact, save_tensors, write_json, write_text
from directcm.runtime.blocks import batches
from directcm.runtime.progress import Progress

VERSION = "clip_tiny-1"
PAD, START, END = "<pad>", "<start>", "<end>"
LONGEST = 77
VOCABULARY = 512
SHIFT = 1
LEVELS_PER_IMAGE = 4
MAX_BLUR = 0.15
MAX_NOISE = 0.6
TOP_SCORE = 10.0


class CaptionTokenizer:
    """Byte-level BPE (any Unicode text has tokens): texts → ids (n, context), cut or padded, between start and end."""

    def __init__(self, text: str, context: int) -> None:
        from tokenizers import Tokenizer

        self.text = text
        self.context = context
        self._tokenizer = Tokenizer.from_str(text)
        # A caption that spells a special token must not be read as one.
        self._tokenizer.encode_special_tokens = True
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        self.pad, self.start, self.end = ids[PAD], ids[START], ids[END]

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self._tokenizer.get_vocab_size()

    def tokens(self, text: str) -> list[int]:
        """A text's own tokens, neither cut nor framed."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Ids, int64 (len(texts), context)."""
        out = torch.full((len(texts), self.context), self.pad, dtype=torch.int64)
        for i, text in enumerate(texts):
            ids = [self.start, *self.tokens(text)[: self.context - 2], self.end]
            out[i, : len(ids)] = torch.tensor(ids)
        return out


def train_tokenizer(captions: Sequence[str]) -> CaptionTokenizer:
    """A tokenizer for captions, with room for the longest of them (77 tokens at most)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(captions), trainer)
    text = tokenizer.to_str(pretty=True) + "\n"
    longest = max(len(CaptionTokenizer(text, LONGEST).tokens(c)) for c in set(captions))
    return CaptionTokenizer(text, min(LONGEST, max(4, longest + 2)))


def clip_config(settings: ClipTiny, resolution: int, tokenizer: CaptionTokenizer) -> dict[str, Any]:
    """The arguments of open_clip's CLIP, as JSON."""
    head = math.gcd(settings.width, 32)
    return {
        "embed_dim": settings.width,
        "vision_cfg": {
            "image_size": resolution,
            "layers": settings.layers,
            "width": settings.width,
            "patch_size": settings.patch,
            "head_width": head,
        },
        "text_cfg": {
            "context_length": tokenizer.context,
            "vocab_size": tokenizer.vocabulary,
            "width": settings.width,
            "heads": settings.width // head,
            "layers": settings.layers,
            "pool_type": "eos",
            "eos_id": tokenizer.end,
            "pad_id": tokenizer.pad,
        },
    }


def build_clip(config: dict[str, Any]) -> Any:
    """An open_clip CLIP of a configuration, freshly initialised from torch's own generator."""
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    return CLIP(config["embed_dim"], CLIPVisionCfg(**config["vision_cfg"]), CLIPTextCfg(**config["text_cfg"]))


def pixels(images: np.ndarray, device: str | torch.device = "cpu") -> Tensor:
    """Images (n, r, r, 3) in [0, 255] → network input (n, 3, r, r) in [−1, 1], float32."""
    array = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    return torch.from_numpy(array).to(device) / 127.5 - 1


def shifted(images: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Images (n, r, r, 3) moved by offsets (n, 2) in {−SHIFT … SHIFT} pixels, the border repeated."""
    side = images.shape[1]
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="edge")
    steps = np.arange(side)
    y = offsets[:, 0, None] + SHIFT + steps
    x = offsets[:, 1, None] + SHIFT + steps
    return padded[np.arange(len(images))[:, None, None], y[:, :, None], x[:, None, :]]


def degraded(image: np.ndarray, level: float, generator: np.random.Generator) -> np.ndarray:
    """An image (r, r, 3) in [0, 255], degraded by `level` in [0, 1]: blur, then noise, both growing with it; float32.

    The widest blur has a standard deviation of MAX_BLUR of the side, the strongest noise MAX_NOISE of the range.
    """
    from scipy.ndimage import gaussian_filter

    sigma = level * MAX_BLUR * image.shape[0]
    out = gaussian_filter(image.astype(np.float32), (sigma, sigma, 0)) if sigma > 0 else image.astype(np.float32)
    out = out + level * MAX_NOISE * 255 * generator.standard_normal(image.shape, dtype=np.float32)
    return np.clip(out, 0, 255)


def schedule(step: int, steps: int) -> float:
    """Share of the peak learning rate at a step: linear warm-up over a twentieth of them, then half a cosine to 0."""
    warm_up = max(1, steps // 20)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def contrastive_loss(image: Tensor, text: Tensor, caption: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE of images (b, d) and the batch's distinct captions (u, d), both normalised.

    `caption` (b,) in range(u) says which is whose. Image to text it is the cross-entropy over
    distinct captions; text to image the target is spread evenly over all images that bear the caption.
    """
    logits = scale * image @ text.T
    same = torch.nn.functional.one_hot(caption, text.shape[0]).to(logits)
    to_image = -(same / same.sum(0) * logits.log_softmax(0)).sum(0).mean()
    return 0.5 * (nn.functional.cross_entropy(logits, caption) + to_image)


def _seed_of(seed: int, purpose: str) -> int:
    return int(rng.generator(seed, purpose).integers(2**62))


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor, lr: float, clip: float = math.inf) -> None:
    """One step down the loss, gradients clipped to a norm."""
    (group,) = optimiser.param_groups
    group["lr"] = lr
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(group["params"], clip)
    optimiser.step()


def _train_clip(
    model: Any,
    tokens: Tensor,
    images: np.ndarray,
    caption: np.ndarray,
    settings: ClipTiny,
    seed: int,
    device: str,
) -> None:
    progress = Progress("extractor: clip_tiny", settings.steps)
    optimiser = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.05)
    model.train()
    for step in range(settings.steps):
        index = rng.stream(seed, "clip_tiny batch", step * settings.batch_size, settings.batch_size, len(images))
        offsets = rng.generator(seed, "clip_tiny shift", step).integers(-SHIFT, SHIFT + 1, size=(len(index), 2))
        distinct, inverse = np.unique(caption[index], return_inverse=True)
        embedded = model.encode_image(pixels(shifted(images[index], offsets), device), normalize=True)
        texts = model.encode_text(tokens[torch.from_numpy(distinct)].to(device), normalize=True)
        loss = contrastive_loss(embedded, texts, torch.from_numpy(inverse).to(device), model.logit_scale.exp())
        _descend(optimiser, loss, settings.lr * schedule(step, settings.steps), clip=1.0)
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        progress.update(1, f"loss {float(loss.detach()):.3g}")
    model.eval()


@torch.no_grad()
def _embed_degraded(model: Any, images: np.ndarray, seed: int, purpose: str, device: str) -> tuple[Tensor, Tensor]:
    """Embeddings of LEVELS_PER_IMAGE degradations of each image, and their target scores."""
    embeddings, targets = [], []
    for rows in batches(range(len(images)), 64):
        batch = []
        for i in rows:
            generator = rng.generator(seed, purpose, i)
            # The untouched image is one of them: what the head is later asked about is mostly close to it.
            levels = [0.0, *generator.random(LEVELS_PER_IMAGE - 1).tolist()]
            batch += [degraded(images[i], level, generator) for level in levels]
            targets += [TOP_SCORE * (1 - level) for level in levels]
        embeddings.append(model.encode_image(pixels(np.stack(batch), device), normalize=True))
    return torch.cat(embeddings), torch.tensor(targets, device=device)


def _train_head(head: QualityHead, embeddings: Tensor, targets: Tensor, settings: ClipTiny, seed: int) -> None:
    # Without activations the five layers are one linear map, which thousands of examples cannot overfit, so dropout
    # would only add noise; the head stays in evaluation mode.
    head.eval()
    with torch.no_grad():
        head.get_parameter("layers.7.bias").fill_(TOP_SCORE / 2)
    optimiser = torch.optim.AdamW(head.parameters(), weight_decay=1e-4)
    for step in range(settings.head_steps):
        drawn = rng.stream(seed, "clip_tiny head batch", step * 256, 256, len(targets))
        index = torch.from_numpy(drawn).to(targets.device)
        loss = nn.functional.mse_loss(head(embeddings[index]), targets[index])
        _descend(optimiser, loss, 1e-3 * schedule(step, settings.head_steps))


@torch.no_grad()
def _zero_shot(model: Any, images: np.ndarray, tokens: Tensor, caption: np.ndarray, device: str) -> float:
    """Share of images whose nearest caption, of all distinct ones, is their own."""
    texts = torch.cat([model.encode_text(part.to(device), normalize=True) for part in tokens.split(256)])
    nearest = [
        (model.encode_image(pixels(images[rows.start : rows.stop], device), normalize=True) @ texts.T).argmax(1)
        for rows in batches(range(len(images)), 256)
    ]
    return float((torch.cat(nearest).cpu().numpy() == caption).mean())


def make_extractor(
    name: str,
    data: Artifact,
    settings: ClipTiny,
    seed: int,
    out: str | Path,
    device: str = "cpu",
) -> dict[str, Any]:
    """The verb `extractor`: train the small CLIP and its quality head on the train split, and write the artefact.

    Returns the content of extractor.json. On the CPU equal arguments and numbers of threads give equal bytes.
    """
    if name != "clip_tiny":
        raise UserError(f"extractor: {name!r} is not trained here, only clip_tiny is; published ones need no such step")
    rows = data.csv("images.csv")
    resolution = int(data.json("data.json")["resolution"])
    if resolution % settings.patch:
        raise UserError(f"extractors.clip_tiny.patch = {settings.patch} does not divide data.resolution = {resolution}")
    parts = {part: [row for row in rows if row["split"] == part] for part in ("train", "held_out")}
    if len(parts["train"]) < 2:
        raise UserError(
            f"{data.folder / 'images.csv'}: {len(parts['train'])} training images, clip_tiny needs at least 2"
        )
    captions = sorted({row["text"] for row in rows})
    number = {text: i for i, text in enumerate(captions)}

    def read(part: str) -> tuple[np.ndarray, np.ndarray]:
        images = [np.asarray(open_image(data, row["file_name"])) for row in parts[part]]
        caption = np.array([number[row["text"]] for row in parts[part]], dtype=np.int64)
        return (np.stack(images) if images else np.empty((0, resolution, resolution, 3), np.uint8)), caption

    images, caption = read("train")
    tokenizer = train_tokenizer([row["text"] for row in parts["train"]])
    tokens = tokenizer(captions)
    config = clip_config(settings, resolution, tokenizer)
    # open_clip and torch draw initial weights from torch's global generator: seeded from ours here, restored after.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed_of(seed, "clip_tiny init"))
        model = build_clip(config)
        torch.manual_seed(_seed_of(seed, "clip_tiny head init"))
        head = QualityHead(settings.width)
    model, head = model.to(device), head.to(device)
    _train_clip(model, tokens, images, caption, settings, seed, device)
    _train_head(head, *_embed_degraded(model, images, seed, "clip_tiny degrade", device), settings, seed)
    held_out, held_out_caption = read("held_out")
    accuracy = error = None
    if len(held_out):
        accuracy = _zero_shot(model, held_out, tokens, held_out_caption, device)
        embeddings, targets = _embed_degraded(model, held_out, seed, "clip_tiny degrade held out", device)
        with torch.no_grad():
            error = float((head(embeddings) - targets).abs().mean())
    content = {
        "name": name,
        "version": VERSION,
        "config": config,
        "captions": len(captions),
        "held_out_zero_shot_accuracy": accuracy,
        "head_held_out_mae": error,
    }
    public = {"name": name, "seed": seed, **settings.model_dump(mode="json")}
    with new_artifact(out, "extractor", settings=public, inputs={"data": data}) as art:
        save_tensors(art / "clip.safetensors", model.state_dict())
        save_tensors(art / "head.safetensors", head.state_dict())
        write_text(art / "tokenizer.json", tokenizer.text)
        write_json(art / "extractor.json", content)
        art.counts = {"steps": settings.steps, "images": len(images), "captions": len(captions)}
        art.provenance = {"threads": torch.get_num_threads(), "device": str(device)}
    return content


def load_extractor(
    folder: Artifact, device: str | torch.device = "cpu"
) -> tuple[Any, QualityHead, CaptionTokenizer, dict[str, Any]]:
    """CLIP, head, tokenizer and extractor.json of a trained folder, checked, in evaluation mode."""
    content = folder.json("extractor.json")
    if content.get("name") != "clip_tiny" or content.get("version") != VERSION:
        raise UserError(
            f"{folder.folder}: is a {content.get('name')} of version {content.get('version')}, expected clip_tiny of "
            f"{VERSION}; run the extractor step again"
        )
    tokenizer = CaptionTokenizer(
        folder.file("tokenizer.json").read_text(encoding="utf-8"), content["config"]["text_cfg"]["context_length"]
    )
    with torch.random.fork_rng(devices=[]):
        model = build_clip(content["config"])
        head = head_from_state(folder.tensors("head.safetensors"), str(folder.folder / "head.safetensors"))
    model.load_state_dict(folder.tensors("clip.safetensors"))
    return model.eval().to(device), head.to(device), tokenizer, content
