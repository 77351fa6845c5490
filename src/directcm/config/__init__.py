"""The configuration: pydantic models, the one source of validation, schema and documentation.

`config.yaml` is the embedded default, a preset in `workflow/presets/` an overlay on it. Settings that belong
to one kind of data set or teacher stand under that kind's own name, so that an overlay replaces a `kind` in
one line and leaves nothing invalid behind. What a run of the grid is stands in `runs`.
"""

# ruff: noqa: F401
from directcm.config.base import ADAPTER, Block
from directcm.config.data import Data, embedded_images
from directcm.config.evaluation import (
    FRECHET,
    SOUGHT,
    ClipTiny,
    Convergence,
    Editing,
    Errors,
    Evaluation,
    FixedPoints,
    Search,
    Statistics,
)
from directcm.config.reading import (
    check_yaml,
    load_config,
    local,
    lora_rank,
    merge,
    parse,
    read_yaml,
    schema,
    settings_argument,
)
from directcm.config.runs import (
    ODE_AXES,
    RUN_AXES,
    SETTING_AXES,
    TEACHER_SEED,
    VARIED,
    Axes,
    Ode,
    OdeBlock,
    Run,
    Setting,
    number,
    spell,
)
from directcm.config.students import StudentAxes, Targets, Train
from directcm.config.teacher import (
    Diffusers,
    Dit,
    Edm,
    EdmTraining,
    Encode,
    Karras,
    MicroSdxl,
    MicroText,
    MicroVae,
    Mixture,
    PixelDit,
    PixelUnet,
    Process,
    Teacher,
)
from directcm.config.variants import Variant, grid_index, passes
from directcm.config.whole import Config
