"""The report's first page: the same numbers as Table 1, Figure 2 and the verdicts, whatever texts a run holds; how it lies."""

from __future__ import annotations

import base64
import io
import itertools
import re
from html import unescape
from pathlib import Path

import pytest
import yaml
from PIL import Image

from directcm.analysis.pages import opening
from directcm.analysis.tables import cells, claims, table1
from directcm.config.specs import METHODS, METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv, write_csv
from tests.analysis.tidy_tables import outputs

# Some are quick, all together they are not: `make quick` is for what tells most in a minute.
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "workflow/claims.yaml"
SMALL = [{"seed": [0, 1, 2]}]
HOSTILE = "<script>alert(1)</script> {{ 7*7 }} {% for x in y %} </td></table> \u202e 🎲"
EVERY = {
    "process": {"kind": "karras"},
    "teacher": {"kind": "edm"},
    "ode": {"solver": "heun", "N": 16, "w": 2},
    "train": {"adapter": "full"},
    "students": [{"method": list(METHODS)}],
}


def page(
    make, config, tmp_path, captions=("a digit", "another"), side=16, claims_yaml=SHIPPED, columns=12, teachers=None
):
    """(the page, its path) of a made-up run; Figure 2 is drawn as `directcm figure samples` draws it."""
    from directcm.analysis.figures import figure_samples

    metrics, comparisons = make.tidy(config)
    rows = list(range(len(captions)))
    models = ["Teacher", *(METHODS[m] for m in cells.config_methods(config))]
    samples = {name: [make.samples(f"s{i}", rows, side)] for i, name in enumerate(models)}
    figure_samples.draw(make.noise(list(captions)), samples, columns, *outputs(tmp_path, "samples"))
    out = tmp_path / "opening.html"
    drawn = tmp_path / "samples.csv"
    opening.opening(metrics, comparisons, claims_yaml, comparisons, drawn, samples, config, out, teachers)
    return out.read_text(encoding="utf-8"), out


def section(html, name):
    return html[html.index(f'<section class="{name}') :].partition("</section>")[0]


def test_the_numbers_are_those_of_table_1(make, configure, tmp_path):
    config = configure(students=SMALL)
    html, _ = page(make, config, tmp_path)
    metrics, comparisons = make.tidy(config)
    table1.write(metrics, comparisons, config, tmp_path / "table1.csv")
    values = {f"{float(r['mean']):.{METRICS[r['metric']].decimals}f}" for r in read_csv(tmp_path / "table1.csv")}
    own = section(html, "table1")
    assert set(re.findall(r'class="value">(?:<strong>)?([0-9.]+)', own)) == values
    # Models side by side, each metric a line; a number is bold where it is in Table 1.
    assert re.findall(r'scope="col" role="columnheader" class="n" colspan="1"><span class="">([^<&]+)', own) == [
        "Teacher", "Teacher, other noise", "CM", "Direct CM",
    ]  # fmt: skip
    assert own.count("<strong>") == (tmp_path / "table1.html").read_text().count("<strong>") > 0
    assert "not the published metrics" in own and "Bold: the better" in own
    # The paper's numbers are on another scale: they stand in the table itself.
    assert "paper:" not in own and "paper:" in (tmp_path / "table1.html").read_text()


def test_figure_2_shows_the_images_themselves(make, configure, tmp_path):
    html, _ = page(make, configure(students=SMALL), tmp_path, captions=[f"digit {i}" for i in range(12)])
    own = section(html, "figure2")
    found = re.findall(
        r'<img class=pixels src="data:image/png;base64,([^"]+)" width="16" height="16" alt="([^"]+)">', own
    )
    shown = list(dict.fromkeys(int(r["row"]) for r in read_csv(tmp_path / "samples.csv")))[:10]
    assert [alt for _, alt in found] == [f"{m}: digit {i}" for i in shown for m in ("Teacher", "CM", "Direct CM")]
    assert "The first 10 of 12." in own
    for i, name in ((0, "s0"), (2, "s2")):
        kept = Image.open(make.root / f"samples/{name}/images/{shown[0]:05d}.png")
        assert Image.open(io.BytesIO(base64.b64decode(found[i][0]))).tobytes() == kept.convert("RGB").tobytes()


def test_a_large_image_is_made_small(make, configure, tmp_path):
    html, out = page(make, configure(students=SMALL), tmp_path, side=512)
    assert html.count('src="data:image/jpeg;base64,') == 6 and 'width="128" height="128"' in html
    assert "class=pixels" not in html
    assert out.stat().st_size < 100_000


def test_verdicts_are_those_of_the_claims(make, configure, tmp_path):
    config = configure(students=SMALL)
    html, _ = page(make, config, tmp_path)
    comparisons = make.tidy(config)[1]
    own = unescape(html)
    for verdict in claims.verdicts_of(SHIPPED, comparisons, config):
        words = claims.words(verdict, config)
        assert f"<bdi>{words.says}</bdi></th><td>" in own and f"<strong>{words.text}</strong>" in own
    # The paper's stand beside the table and the figure.
    assert section(html, "verdicts").count("<bdi>") == 15 and "FD-tiny for FID" in section(html, "verdicts")


def test_verdicts_over_teachers_are_from_their_table(make, configure, tmp_path):
    config = configure(students=[*SMALL, {"teacher_seed": [1, 2]}])
    comparisons, teachers = make.tidy(config)[1], tmp_path / "teachers.csv"
    lines = [{"teacher_seed": t, **line} for line in read_csv(comparisons) for t in range(3)]
    write_csv(teachers, lines, list(lines[0]))
    found = {}
    for given in (None, teachers):
        html, _ = page(make, config, tmp_path, teachers=given)
        (own,) = (
            v for v in claims.verdicts_of(SHIPPED, comparisons, config, given) if v.claim.id == "ode-error-teachers"
        )
        words = claims.words(own, config)
        said = unescape(html).partition(f"<bdi>{words.says}</bdi>")[2].partition("</tr>")[0]
        assert f"<strong>{words.text}</strong>" in said and (f"adjusted p {words.p}<" in said) is bool(words.p)
        found[given] = own.verdict
    assert found[None] == claims.NOT_RUN != found[teachers]


def test_many_methods_stand_below_one_another(make, configure, tmp_path):
    html, _ = page(make, configure(**EVERY), tmp_path)
    assert '<div class="parts wide">' in html and '<table class="down">' in html
    own = section(html, "table1")
    for label in METHODS.values():
        assert f'rowheader">{label}<br>' in own
    assert len(re.findall("<img ", html)) == 2 * (1 + len(METHODS))


def test_a_run_without_a_metric_of_table_1_says_so(make, configure, tmp_path):
    html, _ = page(make, configure(students=SMALL, metrics=["cmmd_tiny"]), tmp_path)
    assert "no metric of Table 1 is among its metrics" in section(html, "table1")
    assert "<table" not in section(html, "table1") and section(html, "figure2").count("<img ") == 6


def test_what_a_user_writes_is_text(make, configure, tmp_path):
    config = configure(students=SMALL)
    own = tmp_path / "claims.yaml"
    items = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["claims"]
    own.write_text(yaml.safe_dump({"claims": [items[0] | {"says": HOSTILE}]}), encoding="utf-8")
    html, _ = page(make, config, tmp_path, captions=(HOSTILE, "W" * 300), claims_yaml=own)
    assert "<script" not in html and "&lt;script&gt;" in section(html, "verdicts")
    assert html.count("</table>") == html.count("<table")
    assert "{{ 7*7 }} {% for x in y %}" in section(html, "verdicts")


def test_a_figure_of_other_samples_is_an_error(make, configure, tmp_path, one_line):
    config = configure(students=SMALL)
    metrics, comparisons = make.tidy(config)
    drawn = tmp_path / "samples.csv"
    write_csv(
        drawn,
        [{"band": 0, "column": 0, "row": 7, "prompt": "x", "model": "CM"}],
        ["band", "column", "row", "prompt", "model"],
    )
    with pytest.raises(UserError) as error:
        opening.opening(
            metrics,
            comparisons,
            SHIPPED,
            comparisons,
            drawn,
            {"CM": [make.samples("cm", [0])]},
            config,
            tmp_path / "o.html",
        )
    assert one_line(error) == f"{drawn}: shows images that the samples do not have; draw Figure 2 again"


def test_the_report_takes_the_page_as_it_is(make, configure, tmp_path):
    """workflow.rst goes through Jinja and docutils; what a user wrote goes through neither."""
    from docutils.core import publish_parts
    from jinja2 import Environment, StrictUndefined

    config = configure(students=SMALL)
    html, out = page(make, config, tmp_path, captions=(HOSTILE, "..\n\n.. include:: /etc/passwd"))
    text = (ROOT / "workflow/report/workflow.rst").read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    values = {"config": config.model_dump(mode="json") | {"opening": str(out)}}
    made = publish_parts(
        environment.from_string(text).render(snakemake=values), writer="html", settings_overrides={"halt_level": 2}
    )["html_body"]
    assert html.strip() in made and "not there yet" not in made
    assert made.index('class="opening"') < made.index("How to read the verdicts")


@pytest.mark.browser
@pytest.mark.parametrize("settings", [{"students": SMALL}, EVERY], ids=["pair", "methods"])
def test_the_parts_lie_beside_or_below_one_another(make, configure, tmp_path, browser, settings):
    """In the width that Snakemake's menu leaves of 1400 pixels, and on a phone: nothing is cut, nothing lies over another."""
    html, out = page(
        make, configure(**settings), tmp_path, captions=[f"digit {i}" for i in range(8)] + ["W" * 99, HOSTILE]
    )
    out.write_text(f'<!DOCTYPE html><meta charset="utf-8"><body style="margin: 12px">{html}', encoding="utf-8")
    for width in (1120, 400):
        window = browser.new_page(viewport={"width": width, "height": 900})
        window.goto(out.as_uri())
        assert window.evaluate("document.documentElement.scrollWidth") == width
        # No table is wider than its part, no word than its cell.
        cut = """() => [...document.querySelectorAll(".opening .scroll, .opening th, .opening td")]
            .filter(e => e.clientWidth > 1 && e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML.slice(0, 200))"""
        assert window.evaluate(cut) == []
        names = (".table1", ".figure2", ".parts > .verdicts")
        boxes = [window.locator(f".opening {name}").bounding_box() for name in names]
        for one, two in itertools.pairwise(boxes):
            if width == 400:
                assert two["y"] >= one["y"] + one["height"]
            else:
                assert two["x"] >= one["x"] + one["width"] and two["y"] == one["y"]
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
        window.close()
