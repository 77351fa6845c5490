"""A user's folder of 200 captioned images, given by two lines of configuration, goes through to a report; an archive of it gives the same data."""

from __future__ import annotations

import csv
import json
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from directcm.config.specs import BASELINES
from directcm.runtime.artifacts import open_artifact, sha256
from tests.runs import SMOKE, copy_repository, make_run, planned

pytestmark = [pytest.mark.pipeline, pytest.mark.slow]
HOSTILE = (
    '<script>alert("x")</script> 100 % of $5_000 & "quotes",\nnew line, שלום, 🎈',
    "<img src=x onerror=\"document.title='owned'\"> <svg onload=\"document.title='owned'\"> ']]> -->",
    "\u202eright to left \u202c مرحبا بالعالم, \\input{/etc/passwd} \\write18{x} #1 ~ ^ {{ 7*7 }} {% for %} 👩‍👩‍👧",
    "=HYPERLINK(1)\t\r\nit's; `a`_ |s| **b** </td></table> javascript:alert(1) " + "very long, " * 1000,
)


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
    for i in range(0, 200, 2):
        lines[i]["text"] = HOSTILE[i // 2 % len(HOSTILE)]
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file_name", "text"])
        writer.writeheader()
        writer.writerows(lines)


def test_two_lines_of_configuration(tmp_path: Path, browser) -> None:
    folder = copy_repository(tmp_path / "copy")
    make_folder(folder / "pictures")
    overlay = folder / "mine.yaml"
    overlay.write_text("data: {kind: folder, path: pictures}\npreset: mine\n")
    (folder / "one.yaml").write_text("students: [{method: [cm, direct_cm], seed: [0]}]\n")
    small = [*SMOKE, "one.yaml"]
    run = make_run(folder)
    # The smoke preset's small budgets under the user's own lines.
    done = run("snakemake", "--cores", "2", *small, str(overlay))
    assert done.returncode == 0, done.stderr[-4000:]
    report = run("snakemake", "--quiet", "all", "--report", "report.html", *small, str(overlay))
    assert report.returncode == 0, report.stderr[-3000:]
    with open(folder / "results/mine/tables/table1.csv", newline="") as file:
        table = list(csv.DictReader(file))
    students = {"Teacher", "Teacher, other noise", "CM", "Direct CM"}
    assert {r["row"] for r in table} == students | set(BASELINES.values())
    # No labels, so no reading of the prompted class; everything else is there.
    assert {r["metric"] for r in table} == {"ode_error", "fd_tiny", "kid_tiny", "clip_tiny", "quality_tiny"}
    # Captions are kept to the letter, and are text wherever they are shown: nothing of them is run.
    with open(folder / "results/mine/data/images.csv", newline="", encoding="utf-8") as file:
        kept = {row["text"] for row in csv.DictReader(file)}
    assert set(HOSTILE) <= kept and max(len(text) for text in kept) > 10_000
    pages = [*(folder / "results/mine").rglob("*.html"), folder / "report.html"]
    for path in pages:
        text = path.read_text(encoding="utf-8")
        assert '<script>alert("x")' not in text and "<img src=x" not in text and "<svg onload" not in text
        page = browser.new_page()
        problems: list[str] = []
        page.on("dialog", lambda d, p=problems: (p.append("dialog"), d.dismiss()))
        page.on("pageerror", lambda e, p=problems: p.append(str(e)))
        page.goto(path.as_uri())
        page.wait_for_load_state("load")
        assert page.title() != "owned" and problems == [], path
        page.close()
    # The figures draw them, and their CSVs name them.
    with open(folder / "results/mine/figures/samples.csv", newline="", encoding="utf-8") as file:
        drawn = {row["prompt"] for row in csv.DictReader(file)}
    assert drawn <= kept and drawn & set(HOSTILE)
    for path in (folder / "results/mine").rglob("*.tex"):
        assert "\\input{/etc" not in path.read_text(encoding="utf-8")


def test_an_archive_is_the_folder_again(tmp_path: Path) -> None:
    """By its rule: made once, planned anew where the checksum changes, and what is wrong is said in one line."""
    folder = copy_repository(tmp_path / "copy")
    make_folder(folder / "pictures")
    with tarfile.open(tmp_path / "pictures.tar.gz", "w:gz") as tar:
        tar.add(folder / "pictures", "pictures")
    right = sha256(tmp_path / "pictures.tar.gz")
    run = make_run(folder)

    def made(kind: str, *flags: str, **keys: str) -> subprocess.CompletedProcess[str]:
        (folder / f"{kind}.yaml").write_text(json.dumps({"data": {"kind": kind, **keys}, "preset": kind}))
        return run("snakemake", "--cores", "1", f"results/{kind}/data/manifest.json", *flags, *SMOKE, f"{kind}.yaml")

    address = (tmp_path / "pictures.tar.gz").as_uri()
    wrong = made("archive", "--retries", "0", url=address, sha256="0" * 64)
    assert wrong.returncode != 0 and not (folder / "results/archive/data").exists()
    said = [line for line in wrong.stderr.splitlines() if "directcm data: error: " in line]
    assert said and right in said[0] and "0" * 64 in said[0]
    for _ in range(2):
        done = made("archive", url=address, sha256=right)
        assert done.returncode == 0, done.stderr[-3000:]
    assert "Nothing to be done" in done.stderr + done.stdout
    (kept,) = (p for p in (folder / "downloads").iterdir() if p.suffix == ".gz")
    assert sha256(kept) == right
    assert planned((again := made("archive", "-n", path=str(kept), sha256="1" * 64)).stdout + again.stderr) == {
        "data": 1
    }
    done = made("folder", path="pictures")
    assert done.returncode == 0, done.stderr[-3000:]
    a, b = (open_artifact(folder / "results" / kind / "data", "data").verify() for kind in ("archive", "folder"))
    assert {n for n in a.checksums if a.checksums[n] != b.checksums.get(n)} == {"data.json"}
    assert a.checksums.keys() == b.checksums.keys()
