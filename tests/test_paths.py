"""Paths as keys: they agree with Snakemake's Paramspace, and name everything that a configuration makes."""

from __future__ import annotations

import pandas as pd
from snakemake.utils import Paramspace

from directcm import paths
from directcm.config import ODE_AXES, RUN_AXES, Config, number, parse


def test_keys_are_paramspace_instances() -> None:
    config = parse(Config, {"students": [{"N": [10, 50], "w": [1, 2.5], "lr": [1e-5], "seed": [0, 3]}]})
    rows = [{k: number(v) if isinstance(v, float) else str(v) for k, v in run.items()} for run in config.runs()]
    space = Paramspace(pd.DataFrame(rows, columns=list(RUN_AXES)), filename_params="*", filename_sep=",")
    assert list(space.instance_patterns) == paths.runs(config)
    assert "lr~0.00001," in paths.runs(config)[0] and "w~2.5," in paths.runs(config)[-1]


def test_the_embedded_default() -> None:
    config = Config()
    assert paths.key(paths.default_ode(config), ODE_AXES) == "solver~ddim,N~50,w~3"
    assert paths.odes(config) == paths.target_odes(config) == ["solver~ddim,N~50,w~3"]
    assert paths.sets(config)[0] == "teacher/solver~ddim,N~50,w~3" and len(paths.sets(config)) == 7
    # data, teacher, latents, noise, an extractor, 2 + 2 shards, 6 students, 7 evaluations
    assert len(paths.artefacts(config)) == len(set(paths.artefacts(config))) == 22


def test_targets_are_for_methods_that_want_them() -> None:
    config = parse(Config, {"students": [{"method": ["cm"], "N": [10]}, {"method": ["direct_cm"], "N": [20]}]})
    assert paths.target_odes(config) == ["solver~ddim,N~20,w~3"]
    assert paths.odes(config) == [f"solver~ddim,N~{n},w~3" for n in (50, 10, 20)]
