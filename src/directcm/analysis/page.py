"""Self-contained HTML pages: one style, everything escaped, nothing loaded, no script, readable on a phone."""

from __future__ import annotations

import base64
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from directcm.runtime.artifacts import write_text

if TYPE_CHECKING:
    from jinja2 import Environment

# Where templates are named from: a file beside the module that fills it, and named like it.
ROOM = Path(__file__).parent


def plain(text: object) -> str:
    """Text on one line without control characters: a user's caption must not break a table or a figure."""
    import unicodedata

    spaced = "".join(" " if c.isspace() else c for c in str(text))
    kept = "".join(c for c in spaced if unicodedata.category(c) not in ("Cc", "Cs"))
    return " ".join(kept.split())


def data_uri(image: bytes, kind: str) -> str:
    """A PNG or JPEG as an address that holds the picture itself."""
    return f"data:image/{kind};base64,{base64.b64encode(image).decode('ascii')}"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(ROOM), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip


def write_page(path: str | Path, template: str, **values: Any) -> None:
    """Write HTML atomically from a template, named from this folder; every value is HTML-escaped.

    A whole page extends page.html, and `values` hold its `title`.
    """
    write_text(path, _environment().get_template(template).render(**values))
