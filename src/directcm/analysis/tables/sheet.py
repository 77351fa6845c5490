"""What a table is before it is written, and how it is: `Sheet` by sheet.html as a page, by sheet.tex as LaTeX.

Numbers are text here. A sheet is plain text, but for `Tex`; each writer escapes it for its own format.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from directcm.analysis.page import ROOM, plain, write_page
from directcm.runtime.artifacts import write_text

if TYPE_CHECKING:
    from jinja2 import Environment

ARROWS = {"lower": "↓", "higher": "↑"}


class Tex(str):
    """Text that is LaTeX already."""


@dataclass(frozen=True)
class Head:
    """What stands over `span` columns, or before a row. `better`: which way is better, where one is; `small`: what stands below it.

    Of a column: `kind`, numbers to the right, text whole to the left, words where they may break; `label`, its name where a
    narrow page has one cell below the other.
    """

    text: str
    better: str = ""
    small: str = ""
    span: int = 1
    kind: Literal["number", "text", "words"] = "number"
    label: str = ""

    @property
    def arrow(self) -> str:
        return ARROWS.get(self.better, "")

    @property
    def full(self) -> str:
        """ "FD-tiny ↓"."""
        return f"{self.text} {self.arrow}" if self.arrow else self.text


@dataclass(frozen=True)
class Cell:
    """One value as text, None where it is not defined. `sd`: None where it is no mean over seeds; `note` stands under the value."""

    text: str | None
    bold: bool = False
    sd: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    head: Head
    cells: Sequence[Cell]


Groups = Sequence[tuple[str, Sequence[Row]]]


@dataclass(frozen=True)
class Sheet:
    """A table.

    over, heads  what stands over the columns: `over` groups of them, the first line, or nothing
    small        `heads` only says more of what stands over them, in small type
    groups       (title, rows); the title may be empty
    spoken       what a screen reader says of a bold value
    marks        what the marks in notes of cells mean, for LaTeX
    """

    name: str
    title: str
    caption: str
    settings: str
    corner: str
    heads: Sequence[Head]
    groups: Groups
    notes: Sequence[str]
    over: Sequence[Head] = ()
    small: bool = False
    spoken: str = " (significantly better)"
    marks: Sequence[str] = ()

    @property
    def ruled(self) -> list[str]:
        """Which columns stand under one head together: "2-3"."""
        ends = list(itertools.accumulate((head.span for head in self.over), initial=1))
        found = zip(self.over, ends, ends[1:], strict=False)
        return [f"{before + 1}-{end}" for head, before, end in found if head.text and head.span > 1]


# ----------------------------------------------------------------- writers


def write(csv: Path, page: Sheet, tex: Sheet) -> None:
    """Write a table as a page and as LaTeX beside its CSV."""
    write_page(csv.with_suffix(".html"), "tables/sheet.html", title=page.title, sheet=page)
    write_tex(csv.with_suffix(".tex"), "tables/sheet.tex", sheet=tex)


def write_tex(path: str | Path, template: str, **values: Any) -> None:
    """Write LaTeX from a template, named from the folder of page.py; every value but `Tex` is escaped."""
    write_text(path, _environment().get_template(template).render(**values))


_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi omega"
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
    '"': "''", "−": r"$-$", "–": "--", "±": r"$\pm$", "×": r"$\times$", "…": r"\ldots{}", "“": "``",
    "”": "''", "’": "'", "↓": r"$\downarrow$", "↑": r"$\uparrow$", "∞": r"$\infty$", "≥": r"$\geq$", "≤": r"$\leq$",
    "[": "{[}", "]": "{]}", "†": r"$^{\dagger}$", "«": r"$\ll$", "»": r"$\gg$", "ℓ": r"$\ell$",
    **{letter: rf"$\{name}$" for letter, name in zip("αβγδεζηθικλμνξπρστυφχψω", _GREEK.split(), strict=True)},
}  # fmt: skip
# Of Latin-1, what the fonts of plain LaTeX lack.
_LACKING = "\xadÐÞðþ"


def latex(text: object) -> str:
    """Text for LaTeX; `Tex` as it is. What pdfLaTeX cannot set is spelled as its code point, [U+1F600]."""
    if isinstance(text, Tex):
        return text
    out = []
    for character in plain(text):
        if character in _LATEX:
            out.append(_LATEX[character])
        elif ord(character) < 127 or (0xA1 <= ord(character) <= 0xFF and character not in _LACKING):
            out.append(character)
        else:
            out.append(f"{{[}}U+{ord(character):04X}{{]}}")
    return "".join(out)


def _bold(text: str) -> Tex:
    r"""Text in bold; a minus sign in math is not made bold by \textbf."""
    bold = latex(text).replace("$-$", r"$\boldsymbol{-}$")
    return Tex(rf"\textbf{{{bold}}}")


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(ROOM), finalize=latex, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, block_start_string="<%", block_end_string="%>", variable_start_string="<<",
        variable_end_string=">>", comment_start_string="<#", comment_end_string="#>",
    )  # fmt: skip
    environment.filters |= {"bold": _bold, "raw": Tex}
    return environment
