"""What each metric is: its extractor, its references, which way is better, what the paper reports.

A metric on a stand-in network bears its own name (fd_tiny), never the real one's (fid).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Extractor:
    """A feature extractor. `weights` names files of the weights cache; none where it is trained here."""

    name: str
    arrays: tuple[str, ...]
    weights: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metric:
    """One metric. `paper`: row → the number the paper reports for its own metric of this kind."""

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

# The numbers of the paper's main comparison, one step (METHODS.md, "Reported").
_FID = {"CM": 95.3, "Direct CM": 166.0}
_FD_DINO = {"CM": 747.7, "Direct CM": 1148.0}
_CLIP = {"CM": 0.21, "Direct CM": 0.19}
_AESTHETIC = {"CM": 5.5, "Direct CM": 5.0}
_BOTH = ("teacher", "data")

METRICS = {
    m.name: m
    for m in (
        Metric("ode_error", "ODE error", "lower", ("teacher",), per_sample=True, decimals=4),
        Metric("fd_tiny", "FD-tiny", "lower", _BOTH, "clip_tiny", paper_name="FID", paper=_FID),
        Metric("kid_tiny", "KID-tiny", "lower", _BOTH, "clip_tiny", decimals=4),
        Metric(
            "clip_tiny", "CLIP-tiny", "higher", ("prompt",), "clip_tiny", True, paper_name="CLIP score", paper=_CLIP
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
        ),
        Metric("prompt_accuracy", "prompt accuracy", "higher", ("prompt",), per_sample=True, needs_labels=True),
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
        ),
        Metric("fid_legacy_pytorch", "FID (legacy_pytorch)", "lower", _BOTH, "inception_legacy_pytorch", decimals=1),
        Metric("kid", "KID", "lower", _BOTH, "inception_clean", decimals=4),
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
        ),
    )
}

METHODS = {"cm": "CM", "direct_cm": "Direct CM"}
SOLVERS = {"ddim": "DDIM", "euler": "Euler", "heun": "Heun"}
