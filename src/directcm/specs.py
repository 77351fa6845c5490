"""What each metric, distance and kind of teacher is. Of a metric: its extractor, its references, which way is better, what the paper reports.

A metric on a stand-in network bears its own name (fd_tiny), never the real one's (fid).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from directcm import registry


@dataclass(frozen=True)
class Extractor:
    """A feature extractor. `weights` names files of the weights cache; none where it is trained here."""

    name: str
    arrays: tuple[str, ...]
    weights: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """One metric. `paper`: row → the number the paper reports for its own metric of this kind.

    `headline`: it stands in Table 1, else in the table of all metrics only. `stand_in_for`: the metric on a published
    network whose place a *-tiny metric takes where that network is not at hand; "" where there is none. `least`: images on either
    side below which it is not defined.
    """

    name: str
    title: str
    better: str
    references: tuple[str, ...]
    extractor: str | None = None
    per_sample: bool = False
    decimals: int = 3
    paper_name: str = ""
    paper: Mapping[str, float] = field(default_factory=dict)
    same_scale_as_paper: bool = False
    needs_labels: bool = False
    headline: bool = False
    stand_in_for: str = ""
    least: int = 2


EXTRACTORS = {
    e.name: e
    for e in (
        Extractor("clip_tiny", ("image", "text", "score")),
        Extractor("inception_clean", ("image",), ("inception-2015-12-05.pt",)),
        Extractor("inception_legacy_pytorch", ("image",), ("pt_inception-2015-12-05-6726825d.pth",)),
        Extractor("dinov2_vitl14", ("image",), ("dinov2_vitl14_pretrain.pth",)),
        Extractor("clip_vitl14", ("image", "text"), ("ViT-L-14.pt",)),
        Extractor("aesthetic_laion", ("score",), ("ViT-L-14.pt", "sac+logos+ava1-l14-linearMSE.pth")),
    )
}

# The numbers of the paper's main comparison, one step (2411.08954).
_FID = {"CM": 95.3, "Direct CM": 166.0}
_FD_DINO = {"CM": 747.7, "Direct CM": 1148.0}
_CLIP = {"CM": 0.21, "Direct CM": 0.19}
_AESTHETIC = {"CM": 5.5, "Direct CM": 5.0}
_BOTH = ("teacher", "data")

# What the four numbers of metrics/manifold.py are called, in the order of its result.
_MANIFOLD = ("precision", "recall", "density", "coverage")
# Of these four: k of the k-th nearest neighbour (Naeem et al. 2002.09797).
NEIGHBOURS = 5

METRICS = {
    m.name: m
    for m in (
        Metric("ode_error", "ODE error", "lower", ("teacher",), per_sample=True, decimals=4, headline=True),
        Metric(
            "fd_tiny",
            "FD-tiny",
            "lower",
            _BOTH,
            "clip_tiny",
            paper_name="FID",
            paper=_FID,
            headline=True,
            stand_in_for="fid",
        ),
        Metric("kid_tiny", "KID-tiny", "lower", _BOTH, "clip_tiny", decimals=4, headline=True, stand_in_for="kid"),
        Metric(
            "clip_tiny",
            "CLIP-tiny",
            "higher",
            ("prompt",),
            "clip_tiny",
            True,
            paper_name="CLIP score",
            paper=_CLIP,
            headline=True,
            stand_in_for="clip_score",
        ),
        Metric(
            "quality_tiny",
            "quality-tiny",
            "higher",
            ("none",),
            "clip_tiny",
            True,
            paper_name="aesthetic score",
            paper=_AESTHETIC,
            headline=True,
            stand_in_for="aesthetic",
        ),
        Metric(
            "prompt_accuracy",
            "prompt accuracy",
            "higher",
            ("prompt",),
            per_sample=True,
            needs_labels=True,
            headline=True,
        ),
        Metric("fd_inf_tiny", "FD∞-tiny", "lower", _BOTH, "clip_tiny", stand_in_for="fid_inf"),
        Metric("cmmd_tiny", "CMMD-tiny", "lower", _BOTH, "clip_tiny", stand_in_for="cmmd"),
        *(
            Metric(
                f"{m}_tiny", f"{m}-tiny", "higher", _BOTH, "clip_tiny", stand_in_for=f"{m}_dino", least=NEIGHBOURS + 1
            )
            for m in _MANIFOLD
        ),
        Metric(
            "fid",
            "FID",
            "lower",
            _BOTH,
            "inception_clean",
            decimals=1,
            paper_name="FID",
            paper=_FID,
            same_scale_as_paper=True,
            headline=True,
        ),
        Metric("fid_legacy_pytorch", "FID (legacy_pytorch)", "lower", _BOTH, "inception_legacy_pytorch", decimals=1),
        Metric("fid_inf", "FID∞", "lower", _BOTH, "inception_clean", decimals=1),
        Metric("kid", "KID", "lower", _BOTH, "inception_clean", decimals=4, headline=True),
        Metric(
            "fd_dino",
            "FD-DINO",
            "lower",
            _BOTH,
            "dinov2_vitl14",
            decimals=1,
            paper_name="FD-DINO",
            paper=_FD_DINO,
            same_scale_as_paper=True,
            headline=True,
        ),
        Metric("fd_inf_dino", "FD∞-DINO", "lower", _BOTH, "dinov2_vitl14", decimals=1),
        # The published CMMD embeds at 336 pixels; this is the same network at 224, the one of the CLIP score.
        Metric("cmmd", "CMMD (224 px)", "lower", _BOTH, "clip_vitl14"),
        *(
            Metric(f"{m}_dino", f"{m} (DINOv2)", "higher", _BOTH, "dinov2_vitl14", least=NEIGHBOURS + 1)
            for m in _MANIFOLD
        ),
        Metric(
            "clip_score",
            "CLIP score",
            "higher",
            ("prompt",),
            "clip_vitl14",
            True,
            paper_name="CLIP score",
            paper=_CLIP,
            same_scale_as_paper=True,
            headline=True,
        ),
        Metric(
            "aesthetic",
            "aesthetic score",
            "higher",
            ("none",),
            "aesthetic_laion",
            True,
            decimals=2,
            paper_name="aesthetic score",
            paper=_AESTHETIC,
            same_scale_as_paper=True,
            headline=True,
        ),
    )
}

METHODS = {name: method.label for name, method in registry.methods().items()}
SOLVERS = {"ddim": "DDIM", "euler": "Euler", "heun": "Heun", "edm_heun": "Heun (EDM)"}


@dataclass(frozen=True)
class Distance:
    """What a student's loss compares by. `weights` names files of the weights cache; `images`: it compares RGB images alone."""

    name: str
    title: str
    weights: tuple[str, ...] = ()
    images: bool = False


DISTANCES = {
    d.name: d
    for d in (
        Distance("mse", "MSE"),
        Distance("pseudo_huber", "pseudo-Huber"),
        Distance("l1", "ℓ1"),
        Distance("lpips", "LPIPS", ("vgg16-397923af.pth",), images=True),
    )
}


@dataclass(frozen=True)
class TeacherKind:
    """A kind of teacher.

    `loader`: the module of directcm.teachers that reads its artefact. `latent`: it diffuses a VAE's latents of captioned
    images, else pixels of labelled ones. `learns`: making it is training, which asks for a GPU.
    """

    name: str
    title: str
    loader: str
    processes: tuple[str, ...]
    latent: bool
    learns: bool


TEACHERS = {
    k.name: k
    for k in (
        TeacherKind("micro_sdxl", "small SDXL trained here", "latent_diffusion", ("vp",), latent=True, learns=True),
        TeacherKind(
            "diffusers", "an existing SDXL-type pipeline", "latent_diffusion", ("vp",), latent=True, learns=False
        ),
        TeacherKind(
            "edm", "small EDM on pixels trained here", "pixel_diffusion", ("karras",), latent=False, learns=True
        ),
        TeacherKind(
            "mixture", "the exact score of the training images", "mixture", ("vp", "karras"), latent=False, learns=False
        ),
    )
}
