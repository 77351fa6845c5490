"""A user's folder of 200 captioned images, given by two lines of configuration, goes through to a report."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.pipeline.conftest import SMOKE, copy_repository, make_run

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]
HOSTILE = '<script>alert("x")</script> 100 % of $5_000 & "quotes",\nnew line, שלום, 🎈'


def make_folder(folder: Path) -> None:
    generator = np.random.default_rng(0)
    folder.mkdir()
    lines = []
    for i in range(200):
        image = Image.new("RGB", (40, 32), tuple(int(c) for c in generator.integers(0, 90, 3)))
        x, y = (int(v) for v in generator.integers(4, 20, 2))
        round_ = i % 2 == 0
        draw = ImageDraw.Draw(image)
        (draw.ellipse if round_ else draw.rectangle)((x, y, x + 10, y + 8), fill=(250, 240, 60))
        image.save(folder / f"picture {i}.png")
        lines.append({"file_name": f"picture {i}.png", "text": f"a yellow {'disc' if round_ else 'box'} number {i}"})
    lines[3]["text"] = HOSTILE
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file_name", "text"])
        writer.writeheader()
        writer.writerows(lines)


def test_two_lines_of_configuration(tmp_path: Path) -> None:
    folder = copy_repository(tmp_path / "copy")
    make_folder(folder / "pictures")
    overlay = folder / "mine.yaml"
    overlay.write_text("data: {kind: folder, path: pictures}\npreset: mine\n")
    (folder / "one.yaml").write_text("students: [{method: [cm, direct_cm], seed: [0]}]\n")
    small = [*SMOKE, "one.yaml"]
    run = make_run(folder)
    # The smoke preset's small budgets under the user's own lines.
    done = run("directcm", "warm", "--", "snakemake", "--cores", "2", *small, str(overlay))
    assert done.returncode == 0, done.stderr[-4000:]
    report = run("snakemake", "--quiet", "all", "--report", "report.html", *small, str(overlay))
    assert report.returncode == 0, report.stderr[-3000:]
    with open(folder / "results/mine/tables/table1.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert {r["row"] for r in table} == {"Teacher", "Teacher, other noise", "CM", "Direct CM"}
    # No labels, so no reading of the prompted class; everything else is there.
    assert {r["metric"] for r in table} == {"ode_error", "fd_tiny", "kid_tiny", "clip_tiny", "quality_tiny"}
    for page in (folder / "results/mine").rglob("*.html"):
        assert '<script>alert("x")' not in page.read_text(encoding="utf-8")
    assert '<script>alert("x")</script>' not in (folder / "report.html").read_text(encoding="utf-8")
