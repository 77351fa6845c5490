"""Prompt accuracy: the share of images that a classifier trained on real images reads as the label of their prompt.

The classifier is a support vector machine with a Gaussian kernel on grey pixels: strong on small images of a few
classes, trained in a second, and no neural network, so that it does not share the blind spots of what it judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from directcm.errors import UserError
from directcm.evaluation.metrics import Scores
from directcm.evaluation.metrics.samples import open_image
from directcm.runtime.artifacts import Artifact

METRICS = {
    "prompt_accuracy": {
        "rank": 6, "title": "prompt accuracy", "better": "higher", "references": ("prompt",),
        "takes": ("images", "labels", "data"), "function": "prompt_accuracy", "per_sample": True, "unit": "share",
        "bounds": (0.0, 1.0), "headline": True,
    },
}  # fmt: skip

TRUSTED = 0.97
"""Held-out accuracy on real images below which the metric says little about the samples."""


def grey(images: Sequence[Image.Image], side: int) -> np.ndarray:
    """Images → grey pixels in [0, 1], float64 (n, side²); another size than side × side is a UserError."""
    rows = []
    for i, image in enumerate(images):
        if image.size != (side, side):
            raise UserError(
                f"prompt_accuracy: image {i} is {image.size[0]}×{image.size[1]}, the classifier's are {side}×{side}"
            )
        rows.append(np.asarray(image.convert("L"), dtype=np.float64).ravel() / 255)
    return np.stack(rows) if rows else np.empty((0, side * side))


@dataclass(frozen=True)
class Classifier:
    """A trained classifier of side × side images, and its accuracy on the real images kept from its training."""

    model: Any
    side: int
    held_out_accuracy: float | None

    def correct(self, images: Sequence[Image.Image], labels: Sequence[str]) -> np.ndarray:
        """1 where an image is read as its label, else 0, float64 (n,)."""
        if len(images) != len(labels):
            raise UserError(f"prompt_accuracy: {len(images)} images but {len(labels)} labels")
        if any(not label for label in labels):
            raise UserError("prompt_accuracy: a prompt has no label; drop the metric, or use a data set with labels")
        return (self.model.predict(grey(images, self.side)) == np.asarray(labels)).astype(np.float64)


def train_classifier(data: Artifact) -> Classifier:
    """Train on a data artefact's train split; data without labels, or with one class only, is a UserError."""
    from sklearn.svm import SVC

    rows = data.csv("images.csv")
    if any(not row["label"] for row in rows):
        raise UserError(
            f"{data.folder / 'images.csv'}: images without a label; prompt_accuracy needs labels, drop it from metrics"
        )
    side = int(data.json("data.json")["resolution"])

    def split(name: str) -> tuple[np.ndarray, np.ndarray]:
        chosen = [row for row in rows if row["split"] == name]
        images = [open_image(data, row["file_name"]) for row in chosen]
        return grey(images, side), np.asarray([row["label"] for row in chosen])

    train, labels = split("train")
    if np.unique(labels).size < 2:
        raise UserError(
            f"{data.folder / 'images.csv'}: the train split has fewer than 2 labels; drop prompt_accuracy from metrics"
        )
    model = SVC(kernel="rbf", C=10.0, gamma="scale").fit(train, labels)
    held_out, truth = split("held_out")
    accuracy = float(np.mean(model.predict(held_out) == truth)) if truth.size else None
    return Classifier(model, side, accuracy)


@lru_cache(maxsize=1)
def classifier_of(data: Artifact) -> Classifier:
    """The classifier of an opened data artefact, trained once: the sets of a run share it."""
    return train_classifier(data)


def prompt_accuracy(images: Sequence[Image.Image], labels: Sequence[str], data: Artifact) -> Scores:
    """1 where the classifier of a data artefact reads an image as its label, else 0, of n images and labels."""
    classifier = classifier_of(data)
    held_out = classifier.held_out_accuracy
    flags = ("weak_classifier",) if held_out is None or held_out < TRUSTED else ()
    return Scores(classifier.correct(images, labels), flags, {"prompt_accuracy_held_out": held_out})
