"""The caller's environment: which variables act on a result, and that none does unasked.

Libraries read hundreds of variables. Those that would change numbers, and that a shell, a notebook or another program's launcher
may have left behind, are taken out before anything heavy is imported (`settle`); what is needed is set; what a user sets on
purpose, and may change speed, memory or where files lie, stays and is recorded in every artefact's provenance.json (`acting`).
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import MutableMapping
from fnmatch import fnmatchcase

# Taken out, in groups with the reason. A name that ends in "*" is what others begin with.
CLEARED = (
    # Gradient accumulation, mixed precision, DeepSpeed, FSDP …: the configuration says these.
    "ACCELERATE_* FSDP_* PARALLELISM_CONFIG_* MEGATRON_LM_*",
    # torch.compile, which no verb asks for.
    "TORCHDYNAMO_* TORCHINDUCTOR_* TORCH_COMPILE_*",
    # Matrix products in fewer bits.
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE NVIDIA_TF32_OVERRIDE",
    # Other kernels, other last bits.
    "TORCH_BLAS_PREFER_* TORCH_LINALG_PREFER_* TORCH_CUDNN_* ATEN_CPU_CAPABILITY ONEDNN_* DNNL_* MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE MKL_ENABLE_INSTRUCTIONS MKL_DYNAMIC OPENBLAS_CORETYPE OMP_DYNAMIC OMP_SCHEDULE",
    "NPY_DISABLE_CPU_FEATURES NPY_ENABLE_CPU_FEATURES",
    # Another attention, another way to load, another library than torch.
    "DIFFUSERS_ATTN_* DIFFUSERS_SLOW_IMPORT HF_ENABLE_PARALLEL_LOADING USE_TF USE_FLAX USE_TORCH",
    "USE_SAFETENSORS USE_TORCH_XLA PJRT_DEVICE",
    # "error" ends a job where a library warns; the others are a notebook's.
    "PYTHONWARNINGS MPLBACKEND MATPLOTLIBRC",
)
# Of another program's launcher, unless `directcm launch` started this process.
LAUNCHED = "DIRECTCM_LAUNCHED"
OF_A_LAUNCHER = (
    "RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE GROUP_RANK ROLE_RANK ROLE_WORLD_SIZE NODE_RANK",
    "MASTER_ADDR MASTER_PORT FORK_LAUNCHED PMI_SIZE PMI_RANK MV2_* OMPI_* TORCHELASTIC_*",
)
# Set: numbers or output depend on them.
SET = {
    # Same bytes from cuBLAS every time (NVIDIA's own word for it).
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "DIFFUSERS_VERBOSITY": "error",
}
# Left as the user has them, and recorded: places, devices, memory, threads (their number is a flag of each verb).
RECORDED = (
    "CUDA_* NVIDIA_* PYTORCH_* TORCH_* HF_HOME HF_HUB_CACHE DIRECTCM_* TMPDIR LANG LC_ALL PYTHONPATH",
    "PYTHONOPTIMIZE LD_PRELOAD LD_LIBRARY_PATH OMP_* GOMP_* KMP_* OPENBLAS_* SLURM_JOB_ID SNAKEMAKE_PROFILE",
)
# What this process was started with and no longer has.
_cleared: set[str] = set()


def _matches(name: str, groups: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for group in groups for pattern in group.split())


def settle(environment: MutableMapping[str, str] | None = None) -> list[str]:
    """Take out of the environment what must not act, set what must; to be called before torch is imported. Names taken out.

    Where `directcm launch` started this process its launcher's own variables, accelerate's among them, stay.
    """
    variables = os.environ if environment is None else environment
    launched = LAUNCHED in variables
    gone = [
        name
        for name in sorted(variables)
        if (_matches(name, CLEARED) and not (launched and name.startswith("ACCELERATE_")))
        or (not launched and _matches(name, OF_A_LAUNCHER))
    ]
    for name in gone:
        del variables[name]
    variables.update(SET)
    if environment is None:
        _cleared.update(gone)
    return gone


def start() -> None:
    """What a verb's process does first: `settle`, warnings as Python has them, and text that any terminal can take."""
    settle()
    if sys.warnoptions:
        # What -W or PYTHONWARNINGS asked for.
        warnings.resetwarnings()
        warnings.simplefilter("ignore", DeprecationWarning)
    for stream in (sys.stdout, sys.stderr):
        # A terminal in another encoding gets escapes in place of a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def acting() -> dict[str, object]:
    """For provenance.json: variables that may act and were left as they were, with their values; names of those taken out."""
    return {
        "set_by_the_user": {name: os.environ[name] for name in sorted(os.environ) if _matches(name, RECORDED)},
        "taken_out": sorted(_cleared),
    }
