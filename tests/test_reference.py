"""The generated schema, page and defaults do not drift from the models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from directcm.config import Config, load_config, parse, reference
from directcm.config.reference import commented_yaml, markdown, render

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", ["workflow/schemas/config.schema.json", "docs/configuration.md", "config.yaml"])
def test_no_drift(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == render(Path(path).suffix), f"{path} is stale: run `make docs`"


def test_yaml_says_what_the_configuration_says() -> None:
    for path in [None, *sorted((ROOT / "workflow" / "presets").glob("*.yaml"))]:
        config = load_config(ROOT / "config.yaml", *([path] if path else []))
        assert parse(Config, yaml.safe_load(commented_yaml(config))) == config


def test_every_key_is_described() -> None:
    page = markdown()
    for line in page.splitlines():
        if line.startswith("| `"):
            cells = line.replace("\\|", "¦").split("|")
            assert len(cells) == 6, line
    for key in (
        "`preset`",
        "`data.kind`",
        "`teacher.micro_sdxl.unet.channels`",
        "`teacher.diffusers.revision`",
        "`students[].seed`",
        "`train.lr`",
    ):
        assert f"| {key} |" in page
    assert json.loads(render(".json"))["title"] == "Config"


@pytest.mark.parametrize("value", [6.25e-06, 1e-4, 2.5e-5, 1e-11, -3.125e-7, 9.99e-4, 1 / 3000])
def test_small_numbers_keep_all_their_digits(value: float) -> None:
    assert yaml.safe_load(reference._flow([value])) == [value]
