"""The verb `noise`: the evaluation's initial noise and prompts, shared by teacher and students."""

from __future__ import annotations

from pathlib import Path

from directcm.runtime import rng
from directcm.runtime.artifacts import Artifact, new_artifact, save_tensors, write_csv

# The keys of the noise and of the prompts' order.
PURPOSES = {
    "evaluation": ("evaluation_noise", "evaluation_prompts"),
    "floor": ("floor_noise", "evaluation_prompts"),
    "search": ("search_noise", "search_prompts"),
}


def make(samples: int, purpose: str, data: Artifact, latents: Artifact, seed: int, out: Path) -> None:
    """Row i: standard normal noise (c, h, w), and the caption of the (i mod n_train)-th shuffled training image.

    Teacher and students start from this tensor; the images of these prompts are the data reference. Purpose "floor" is other noise
    for the same prompts: the distance between the teacher's two sets of samples is the floor of any distance to it. Purpose "search" is
    other noise and another order of the prompts, so that nothing is tuned on the evaluation's.
    """
    rows = data.csv("images.csv")
    train = [r for r in rows if r["split"] == "train"]
    draw, prompts = PURPOSES[purpose]
    order = rng.permutation(seed, prompts, len(train))
    chosen = [train[order[i % len(train)]] for i in range(samples)]
    shape = tuple(latents.counts["shape"])
    about = {"samples": samples, "seed": seed, "purpose": purpose}
    with new_artifact(out, "noise", settings=about, inputs={"data": data, "latents": latents}) as art:
        save_tensors(art / "noise.safetensors", {"noise": rng.normal(seed, draw, range(samples), shape)})
        write_csv(
            art / "prompts.csv",
            [{"row": i, "id": r["id"], "text": r["text"], "label": r["label"]} for i, r in enumerate(chosen)],
            ["row", "id", "text", "label"],
        )
        art.counts = {"samples": samples, "images": min(samples, len(train))}
