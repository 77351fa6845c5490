"""The report in a real Chromium: it opens offline, every picture loads, nothing errs, every caption was rendered."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from directcm.config.specs import BASELINES
from directcm.runtime.artifacts import read_csv
from tests.runs import make_run

pytestmark = [pytest.mark.pipeline, pytest.mark.browser, pytest.mark.slow]


def test_make_paper_as_typed(smoke: Path) -> None:
    """The whole grid is there already: what is left is the report and the verdicts on the screen."""
    done = make_run(smoke)("make", "-o", "install", "paper", "PRESET=smoke")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Nothing to be done" in done.stdout + done.stderr
    assert "Direct CM has a lower ODE error than CM." in done.stdout
    assert (smoke / "report-smoke.html").stat().st_size > 1_000_000


@pytest.mark.parametrize("width", [1400, 400])
def test_report_opens_offline_without_an_error(smoke: Path, browser, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: problems.append(str(e)))
    page.on("requestfailed", lambda r: problems.append(r.url[:200]))
    page.goto((smoke / "report.html").as_uri())
    page.get_by_text("6 Provenance").first.wait_for(state="attached")
    text = page.inner_text("body")
    assert "Consistency" in text or "consistency" in text
    for category in ("1 Claims", "2 Tables", "3 Figures", "4 Galleries", "5 Costs", "6 Provenance"):
        assert category in text or width == 400
    assert problems == []
    if width == 1400:
        page.get_by_text("3 Figures").first.click()
        page.get_by_text("Figure 2").first.wait_for()
    assert problems == []
    context.close()


PARTS = (".table1", ".figure2", ".parts > .verdicts")


def test_the_first_page_shows_table_1_figure_2_and_the_verdicts(smoke: Path, browser) -> None:
    """Before any click: at 1400 pixels side by side, on a phone below one another, cut nowhere."""
    for width in (1400, 400):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.goto((smoke / "report.html").as_uri())
        page.get_by_text("Direct CM has a lower ODE error than CM.").first.wait_for()
        if width == 400:
            # The menu would cover half of a phone's screen: it closes by itself, and its button opens it.
            page.wait_for_function("document.querySelector('nav').getBoundingClientRect().width < 1")
        # Pictures have their sizes before they are decoded; a transition has none.
        boxes = [page.locator(f".opening {name}").bounding_box() for name in PARTS]
        assert all(box["x"] >= 0 and box["x"] + box["width"] <= width and box["width"] > 250 for box in boxes)
        for one, two in itertools.pairwise(boxes):
            if width == 1400:
                assert two["x"] >= one["x"] + one["width"] and two["y"] == one["y"] < 200
            else:
                assert two["x"] == one["x"] and two["y"] >= one["y"] + one["height"]
        fits = """() => [document.documentElement, ...document.querySelectorAll(".h-screen.overflow-auto.items-center, .opening .scroll")]
            .every(e => e.scrollTop === 0 && e.scrollWidth <= e.clientWidth)"""
        assert page.evaluate(fits)
        values = page.locator(".opening .table1 .value").all_inner_texts()
        table = read_csv(smoke / "results/smoke/tables/table1.csv")
        # A note says of the baselines what a column each would.
        assert len(values) == sum(r["mean"] != "" and r["row"] not in BASELINES.values() for r in table) > 20
        loaded = "() => [...document.querySelectorAll('.opening .figure2 img')].map(i => i.complete && i.naturalWidth)"
        # Five columns, of teacher, CM and Direct CM.
        assert page.evaluate(loaded) == [16] * 15
        assert all(page.locator(".opening .figure2 img").nth(i).get_attribute("alt") for i in range(15))
        text = page.inner_text("body")
        assert "cannot be tested at this scale" in text
        assert text.index("Direct CM has a lower ODE error") < text.index("How to read")
        if width == 400:
            page.locator("div.fixed a").click()
            page.get_by_text("3 Figures").first.click()
            page.get_by_text("Figure 2, samples from the same noise").first.wait_for()
        page.close()


def test_every_picture_and_page_in_the_report_is_whole(smoke: Path, browser) -> None:
    """The report's results, decoded from where Snakemake packs them: each picture loads in the browser."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto((smoke / "report.html").as_uri())
    uris = page.evaluate("Object.entries(results).map(([name, r]) => [name, r.mime_type, r.data_uri])")
    assert len(uris) >= 25
    pictures = 0
    for name, kind, uri in uris:
        assert uri and uri.startswith("data:"), name
        if kind == "image/png":
            size = page.evaluate(
                "uri => new Promise(done => {const i = new Image(); i.onload = () => done(i.naturalWidth); i.onerror = () => done(0); i.src = uri})",
                uri,
            )
            assert size > 300, name
            pictures += 1
    assert pictures == 14
    captions = page.evaluate("Object.values(results).map(r => r.caption || '')")
    assert all(captions) and not any("{{" in c or "{%" in c for c in captions)
    context.close()


PAGES = (
    *(
        f"tables/{name}.html"
        for name in ("table1", "table2", "table3", "table_metrics", "table_further", "table_comparison", "table_parts")
    ),
    *(f"tables/{name}.html" for name in ("table_baselines", "table_within")),
    *(f"{name}/paper.html" for name in ("claims", "gallery", "costs", "provenance")),
)


def test_a_click_enlarges_a_picture_and_another_closes_it(smoke: Path, browser) -> None:
    context = browser.new_context(viewport={"width": 1000, "height": 800}, offline=True)
    page = context.new_page()
    page.goto((smoke / "results/smoke/gallery/paper.html").as_uri())
    picture = page.locator("img").nth(3)
    small = picture.bounding_box()
    picture.click()
    large = picture.bounding_box()
    assert small and large and large["width"] > 1.5 * small["width"]
    page.keyboard.press("Space")
    again = picture.bounding_box()
    assert again and abs(again["width"] - small["width"]) < 1
    context.close()


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [1400, 400])
def test_pages_do_not_overflow(smoke: Path, browser, name: str, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
    page.goto((smoke / "results/smoke" / name).as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert problems == []
    context.close()
