"""Every LaTeX table compiles with plain pdfLaTeX, whatever text a run holds."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from directcm.analysis.tables.sheet import latex
from directcm.analysis.tables.table_search import write as table_search
from directcm.config import Config, parse
from tests.analysis import test_claims, test_table4, test_table_baselines, test_table_search
from tests.analysis.tidy_tables import available, table
from tests.patience import PATIENCE

HOSTILE = (
    '<script> "quotes" ‘others’ «and» \\input{/etc/passwd} \\write18{x} $5_a$ 100% & #1 ~^ {% for %} {{ 7*7 }} << x >> <% if %> '
    "שלום مرحبا \u202e 👩‍👩‍👧 ℓ2 χ² ≥ naïve Þórr"
)
EVERY = "".join(map(chr, (*range(0x20, 0x7F), *range(0xA0, 0x180), *range(0x391, 0x3CA), *range(0x2010, 0x2300))))


def compiled(folder: Path, tables: Sequence[Path], text: str = "") -> str:
    """The log of a document of these tables and this text; what pdfLaTeX cannot compile is an error."""
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdfLaTeX on this machine (Debian: apt-get install texlive-latex-recommended)")
    inputs = "\n".join(rf"\input{{{path}}}\clearpage" for path in tables)
    document = f"\\documentclass{{article}}\n\\usepackage{{booktabs,amsmath}}\n\\begin{{document}}\n{inputs}\n{text}\n\\end{{document}}\n"
    (folder / "document.tex").write_text(document, encoding="utf-8")
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "document.tex"]
    done = subprocess.run(words, cwd=folder, capture_output=True, timeout=PATIENCE, check=False)
    log = (folder / "document.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, log[-3000:]
    assert "Missing character" not in log
    return log


@pytest.mark.slow
def test_every_table_compiles(make, configure, tmp_path: Path) -> None:
    students = [{"seed": [0, 1], "sampling_steps": [1, 4]}, {"solver": ["heun"], "seed": [0, 1]}]
    config = configure(
        students=students,
        metrics=["ode_error", "fd_tiny", "kid_tiny", "clip_tiny", "fid", "fd_inf_tiny", "cmmd_tiny"],
        data={"kind": "folder", "path": HOSTILE},
    )
    metrics, comparisons = make.tidy(config, further=True, change=test_table_baselines.with_baselines)
    names = available(config)
    of_both = {"table1", "table2", "table3", "table_parts", "table_metrics", "table_further", "table_comparison"}
    assert set(names) == {*of_both, "table_baselines", "table_within"}
    for name in of_both:
        table(name, metrics, comparisons, config, tmp_path / f"{name}.csv")
    table("table_baselines", comparisons, config, tmp_path / "table_baselines.csv")
    rho = {(row, "clip_tiny"): (0.1, -0.2) for row in ("CM", "Direct CM")}
    related = test_table_baselines.correlations(tmp_path / "correlations.csv", config, rho)
    table("table_within", comparisons, related, config, tmp_path / "table_within.csv")
    every = parse(Config, test_table4.CONTENT)
    table("table4", *test_table4.tables(every, tmp_path), every, tmp_path / "table4.csv")
    searches = [test_table_search.search(tmp_path / method, method) for method in ("cm", "direct_cm")]
    table_search(searches, Config(), tmp_path / "table_search.csv")
    desk, grid = test_claims.Desk(tmp_path), test_claims.grid()
    lines = test_claims.table(grid)
    desk.judge(test_claims.SHIPPED, lines, grid)
    (tmp_path / "claims.tex").rename(tmp_path / "shipped.tex")
    hostile = HOSTILE[:130], HOSTILE[130:]
    desk.judge([test_claims.claim(f"c{i}", says=says, where=says) for i, says in enumerate(hostile)], lines, grid)
    tables = sorted(tmp_path.glob("*.tex"))
    assert len(tables) == 13
    log = compiled(tmp_path, tables)
    assert all(f"/{path.name}" in log.replace("\n", "") for path in tables)


@pytest.mark.slow
def test_every_character_compiles(tmp_path: Path) -> None:
    """Those that plain pdfLaTeX cannot set are spelled as code points; what tables write themselves never is."""
    compiled(tmp_path, [], "\\par\n".join(latex(f"x{character}x") for character in EVERY))
    assert "U+" not in latex("− – ± × … “” ’ ↓ ↑ ∞ ≥ ≤ † ℓ χ «é»")
    assert latex("Þ") == "{[}U+00DE{]}"
