"""What figures and tables say of themselves, read from their source, so that planning imports none of them.

A figure is a file `analysis/figures/figure_NAME.py` with `draw`, a table a file `analysis/tables/table_NAME.py` with `write`, and nothing
else. Rules, command line, gallery, report and costs find it by what it declares:

    EXHIBITS = {
        "frontier": {                      the name of its files, figures/frontier.pdf, .png and .csv, and of its rule
            "title": "The frontier",       what the report calls it
            "takes": "metrics setting",    flags of the verb `figure` or `table`; of these `columns` is `figures.NAME` of the
                                           configuration, and the rules have the others
        }
    }

    def draw(metrics, setting, out_pdf, out_png, out_csv, *, paper, alpha, space)     what it takes, in that order, then its files,
                                           and of the last three those that it names
    def write(metrics, config, out_csv)    LaTeX and HTML go beside its CSV

and, where it is so,

    "short"                                its title in the gallery
    "scope": "paper"                       it shows the whole grid, and not the main comparison
    "experiments": "C E"                   it is of these experiments on why, and takes their arms and tests
    "needs": "snapshots and not search"    facts of the configuration without which there is nothing to show (`analysis/needs.py`)
    "category": "3 Figures"                where in the report
    "also": {"mean": "mean_curves.csv"}    what it writes besides
    "section": "Samples"                   where in the gallery
    "place": 1                             among figures or tables; those without one come last, by name

A name with {axis} is one exhibit for each key of its titles. The caption is `workflow/report/NAME.rst`; without one it is the
module's docstring, in `exhibit.rst`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from directcm.config.registry import literals, require

FOLDER = Path(__file__).resolve().parents[1] / "analysis"
MODULES = {"figure": "figures/figure_*.py", "table": "tables/table*.py"}
CATEGORIES = {"figure": "3 Figures", "table": "2 Tables"}
ENDINGS = {"figure": ("pdf", "png", "csv"), "table": ("csv", "tex", "html")}


@dataclass(frozen=True)
class Exhibit:
    """A figure or table by what its file says; `kind` is its verb, `module` its module's name below the package."""

    kind: str
    name: str
    module: str
    text: str
    title: str | Mapping[str, str]
    takes: str
    short: str | Mapping[str, str] = ""
    scope: str = "main"
    experiments: str = ""
    needs: str = "True"
    also: Mapping[str, str] = field(default_factory=dict)
    category: str = ""
    section: str = "Figures"
    place: int = 1000

    @property
    def stem(self) -> str:
        """Its name without a wildcard."""
        return self.name.partition("_{")[0]

    @property
    def job(self) -> str:
        """What its rule, log and benchmark file are named after."""
        return f"figure_{self.name}" if self.kind == "figure" else self.name

    @property
    def rule(self) -> str:
        return self.job.partition("_{")[0]

    @property
    def word(self) -> str:
        """Its name on the command line, which is its module's."""
        return self.module.rpartition(".")[2].removeprefix("figure_")

    @property
    def files(self) -> dict[str, str]:
        """Its files below the results folder, by ending, and what it writes besides."""
        names = {ending: f"{self.name}.{ending}" for ending in ENDINGS[self.kind]}
        return {key: f"{self.kind}s/{name}" for key, name in (*names.items(), *self.also.items())}

    @property
    def each(self) -> list[Exhibit]:
        """It alone, or one for every value of its wildcard."""
        if isinstance(self.title, str) or isinstance(self.short, str):
            return [self]
        return [
            replace(
                self, name=self.name.format(axis=value), title=title, short=self.short[value], needs=self.needs.format(axis=value)
            )
            for value, title in self.title.items()
        ]  # fmt: skip


def names(kind: str, folder: Path = FOLDER) -> list[str]:
    """The names of all figures or tables on the command line."""
    return sorted(path.stem.removeprefix("figure_") for path in folder.glob(MODULES[kind]))


def declared(kind: str, path: Path, folder: Path = FOLDER) -> list[Exhibit]:
    """What the file of a figure or table declares. Raises ValueError where something is missing or not a plain value."""
    found = literals(path.read_text(encoding="utf-8"))
    module = ".".join(("analysis", *path.relative_to(folder).with_suffix("").parts))
    known = {one.name for one in fields(Exhibit)} - {"kind", "name", "module", "text"}
    exhibits: Any = found.get("EXHIBITS")
    plain = isinstance(exhibits, dict) and exhibits and all(isinstance(said, dict) for said in exhibits.values())
    require(plain, f"{path} declares no EXHIBITS = {{name: {{…}}}} of plain values")
    for name, said in exhibits.items():
        wrong = {"title", "takes"} - said.keys() | said.keys() - known
        require(not wrong, f"{path}: {name} lacks, or cannot have, {', '.join(sorted(wrong))}")
        scope = said.get("scope", "main")
        require(scope in ("main", "paper"), f"{path}: the scope of {name} is neither main nor paper")
        titled = ("{axis}" in name) == isinstance(said["title"], dict)
        require(titled, f"{path}: {name} needs a title for each value of its wildcard, and without one a single title")
    return [
        Exhibit(kind, name, module, found["__doc__"], **({"short": said["title"], "category": CATEGORIES[kind]} | said))
        for name, said in exhibits.items()
    ]


@functools.cache
def exhibits(folder: Path = FOLDER) -> list[Exhibit]:
    """All tables, and all figures, in their places."""
    found = [
        one for kind, glob in MODULES.items() for path in folder.glob(glob) for one in declared(kind, path, folder)
    ]
    return sorted(found, key=lambda one: (one.kind != "table", one.place, one.name))
