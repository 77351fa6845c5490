"""Self-contained HTML pages: one style, everything escaped, nothing loaded, no script, readable on a phone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from directcm.artifacts import write_text

STYLE = """
:root { color-scheme: light; --ink: #1a1a1a; --soft: #595959; --line: #d0d0d0; --wash: #f5f5f3; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 84rem; padding: 1.25rem; color: var(--ink); background: #fff;
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p, ul { margin: .4rem 0 .8rem; max-width: 48rem; }
ul { padding-left: 1.2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums;
  border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink); }
caption { text-align: left; padding-bottom: .6rem; color: var(--soft); }
th, td { padding: .45rem .5rem; font-size: .95rem; text-align: left; vertical-align: top; }
thead th { border-bottom: 1px solid var(--ink); font-weight: 600; vertical-align: bottom; }
tbody th { white-space: nowrap; }
tbody th code { white-space: normal; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
tbody + tbody { border-top: 1px solid var(--ink); }
tr.part th { padding-bottom: .1rem; color: var(--soft); font-style: italic; }
tr.part + tr > * { border-top: 0; }
td.n, th.n { text-align: right; }
.pm, .small { color: var(--soft); font-size: .85em; font-weight: 400; }
.value { white-space: nowrap; }
.scroll { overflow-x: auto; }
thead th.group { text-align: center; }
thead th.group span.bar { display: block; border-bottom: 1px solid var(--ink); padding-bottom: .2rem; }
thead tr.over th { border-bottom: 0; padding-bottom: .1rem; }
.paper { display: block; width: fit-content; margin-top: .3rem; padding-left: .4rem; border-left: 3px double #9a6700; color: #7a4f00;
  font-style: italic; font-size: .78rem; line-height: 1.3; max-width: 10rem; }
td.n .paper { margin-left: auto; text-align: left; }
.none { color: var(--soft); }
details { border-top: 1px solid var(--line); }
details:last-of-type { border-bottom: 1px solid var(--line); }
summary { padding: .45rem 0; cursor: pointer; overflow-wrap: anywhere; }
summary:focus-visible { outline: 3px solid #004c8c; outline-offset: 2px; }
details[open] > summary { font-weight: 600; }
details table { margin-bottom: 1rem; }
pre { background: var(--wash); border: 1px solid var(--line); padding: .8rem; overflow-x: auto; font-size: .85rem; }
code { font-size: .9em; overflow-wrap: anywhere; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
@media (max-width: 68rem) {
  body { padding: .9rem; }
  table, caption, tbody, tr, th, td { display: block; width: auto; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table { border-top: 0; border-bottom: 0; }
  tbody, tbody + tbody { border-top: 2px solid var(--ink); }
  tbody tr.part { padding: .5rem 0 0; border-bottom: 0; }
  tbody tr { padding: .5rem 0; border-bottom: 1px solid var(--ink); }
  tbody tr + tr > * { border-top: 0; }
  th, td { padding: .2rem 0; }
  tbody th { font-size: 1.05rem; white-space: normal; }
  td, td.n { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: .75rem; text-align: left; }
  td::before { content: attr(data-label); color: var(--soft); }
  td.n .paper { margin-left: 0; max-width: none; }
  td.wide { display: block; }
  td.wide::before { content: none; }
}
@media print { body { max-width: none; } .paper { color: #333; } }
"""

FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style }}</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
%s
</main>
</body>
</html>
"""


def plain(text: object) -> str:
    """Text on one line without control characters: a user's caption must not break a table or a figure."""
    import unicodedata

    spaced = "".join(" " if c.isspace() else c for c in str(text))
    kept = "".join(c for c in spaced if unicodedata.category(c) not in ("Cc", "Cs"))
    return " ".join(kept.split())


def fragment(body: str, **values: Any) -> str:
    """HTML from a Jinja body, with no page around it; every value is HTML-escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(body).render(**values)


def render(body: str, **values: Any) -> str:
    """A page from a Jinja body; every value is HTML-escaped. `values` holds at least `title`."""
    from markupsafe import Markup

    return fragment(FRAME % body, style=Markup(STYLE), **values)


def write_page(path: str | Path, body: str, **values: Any) -> None:
    """Write a page atomically."""
    write_text(path, render(body, **values))
