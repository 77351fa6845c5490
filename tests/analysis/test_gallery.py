"""The gallery: every picture's own bytes, nothing loaded, no script; and in a browser: enlarged and closed by mouse and keys."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from directcm.analysis.pages.gallery import Picture, gallery, read_items, size
from directcm.errors import UserError

HOSTILE = '"><script>alert(1)</script> 🎉 $x$'


@pytest.fixture
def pictures(tmp_path: Path) -> list[Picture]:
    """Three figures in two sections, one tall, one wide."""
    out = []
    for i, (width, height) in enumerate(((1350, 500), (650, 1400), (1350, 1800))):
        path = tmp_path / f"{i}.png"
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[:, :, i] = np.linspace(0, 255, width).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        out.append(
            Picture(
                path, f"Figure {i}", "First paragraph,\nstill it.\n\nSecond.", "The paper's own" if i < 2 else "Ours"
            )
        )
    return out


def test_the_page_holds_the_files_own_bytes(pictures, tmp_path):
    gallery(pictures, tmp_path / "g.html", "Gallery")
    html = (tmp_path / "g.html").read_text()
    sources = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    assert [base64.b64decode(s) for s in sources] == [p.path.read_bytes() for p in pictures]
    assert re.findall(r"<h2>(.*?)</h2>", html) == ["The paper&#39;s own", "Ours"]
    assert "<script" not in html
    assert "href" not in html
    assert re.findall(r'alt="([^"]*)"', html) == ["Figure 0", "Figure 1", "Figure 2"]
    assert 'width="650" height="1400"' in html
    assert "First paragraph, still it." in html
    gallery(pictures, tmp_path / "again.html", "Gallery")
    assert (tmp_path / "again.html").read_bytes() == (tmp_path / "g.html").read_bytes()


def test_titles_and_captions_are_escaped(pictures, tmp_path):
    gallery([Picture(pictures[0].path, HOSTILE, HOSTILE, HOSTILE)], tmp_path / "g.html", HOSTILE)
    assert "<script" not in (tmp_path / "g.html").read_text()


def test_what_is_no_picture_is_an_error(pictures, tmp_path):
    assert size(pictures[1].path) == (650, 1400)
    with pytest.raises(UserError, match="no pictures given"):
        gallery([], tmp_path / "g.html", "x")
    (tmp_path / "x.png").write_bytes(b"GIF89a")
    with pytest.raises(UserError, match=r"x\.png: not a PNG"):
        gallery([Picture(tmp_path / "x.png", "x")], tmp_path / "g.html", "x")
    with pytest.raises(UserError, match=r"none\.png: no such picture"):
        gallery([Picture(tmp_path / "none.png", "x")], tmp_path / "g.html", "x")


def test_items_come_as_json(pictures, tmp_path):
    items = [{"path": str(p.path), "title": p.title, "caption": p.caption, "section": p.section} for p in pictures]
    (tmp_path / "items.json").write_text(json.dumps(items))
    assert read_items(json.dumps(items)) == read_items(str(tmp_path / "items.json")) == pictures
    assert read_items('[{"path": "a.png", "title": "A = B"}]') == [Picture(Path("a.png"), "A = B")]
    for text in (
        "[",
        '[{"path": "a.png"}]',
        '[{"path": 1, "title": "x"}]',
        '[{"path": "a", "title": "b", "size": "1"}]',
        "[1]",
    ):
        with pytest.raises(UserError, match="--pictures"):
            read_items(text)
    with pytest.raises(UserError, match="no such file"):
        read_items(str(tmp_path / "none.json"))


@pytest.mark.browser
@pytest.mark.parametrize("width", [1400, 400])
def test_in_a_browser(pictures, tmp_path, browser, width):
    gallery(pictures, tmp_path / "g.html", "Gallery")
    page = browser.new_page(viewport={"width": width, "height": 800})
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto((tmp_path / "g.html").as_uri())
    fits = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    wide = "document.querySelectorAll('img')[0].getBoundingClientRect().width"
    address = page.url
    assert page.evaluate(fits)
    before = page.evaluate(wide)
    page.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    page.evaluate("scrollTo(0, 0)")
    page.locator("img").nth(0).click()
    assert page.evaluate(wide) >= max(1.5 * before, 900)
    assert page.evaluate(fits)
    assert page.locator(".close").nth(0).is_visible()
    page.locator(".close").nth(0).click()
    assert page.evaluate(wide) == before
    page.keyboard.press("Space")  # the checkbox still has the focus
    assert page.evaluate(wide) > before
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "zoom1"
    assert page.url == address
    assert messages == []
    page.close()
