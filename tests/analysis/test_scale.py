"""When the paper's number is on our scale, and what teacher a table says it has."""

from __future__ import annotations

import json

import pytest

from directcm.analysis.data.selection import describe
from directcm.analysis.tables.cells import same_scale
from directcm.config import Config, parse

SDXL = {
    "teacher": {"kind": "diffusers", "diffusers": {"id": "some/sdxl", "revision": "0" * 40}},
    "data": {"kind": "folder", "path": "x", "resolution": 1024},
    "metrics": ["fid"],
}


@pytest.mark.parametrize(
    ("settings", "metric", "same"),
    [({}, "fd_tiny", False), ({"metrics": ["fid"]}, "fid", False), (SDXL, "fid", True), (SDXL, "fd_tiny", False)],
)
def test_same_scale_needs_the_papers_extractor_teacher_and_size(settings: dict, metric: str, same: bool) -> None:
    assert same_scale(metric, parse(Config, settings)) is same


def test_tables_name_the_runs_own_teacher() -> None:
    """The rules hand tables a configuration without the small teacher's settings; the pinned one's must be in it."""
    config = parse(Config, SDXL)
    handed = config.model_dump(
        mode="json", exclude={"teacher": {"micro_sdxl"}, "encode": True, "extractors": True, "figures": True}
    )
    read = parse(Config, json.loads(json.dumps(handed)))
    assert "some/sdxl" in describe(read) and describe(read) == describe(config)
