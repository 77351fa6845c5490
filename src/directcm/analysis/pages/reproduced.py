"""The verb `reproduced`: a run's Table 1 against the published one in docs/data, cell by cell, in one line.

A cell is the same where both print the same digits, and within the seeds' sd where the means differ by no more than the
published sd over training seeds. The teacher and its floor have no seeds: they count as within where they moved by no more than
the smallest published sd of their line's students, for a shift of that size changes nothing that the line says of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from directcm.analysis.data.tidy import read
from directcm.analysis.pages.printed import line_name, shown, value_of
from directcm.analysis.pages.publish import ABOUT, relevant
from directcm.analysis.tables import table1
from directcm.analysis.tables.cells import COLUMNS
from directcm.analysis.tables.text import fixed
from directcm.config import Config
from directcm.config.specs import METRICS
from directcm.errors import UserError
from directcm.runtime.artifacts import read_json

# How many of the cells that differ are spelled out.
MOST = 5

Place = tuple[str, str, str]
Verdict = Literal["same", "within", "different"]


class Judged(NamedTuple):
    """A cell of both tables: what is printed in each, and how the two agree. `off` is the difference in sds, None without one."""

    place: Place
    verdict: Verdict
    published: str
    here: str
    off: float | None


def judge(published: Sequence[Mapping[str, Any]], here: Sequence[Mapping[str, Any]]) -> list[Judged]:
    """The cells of two Tables 1 (lines of table.COLUMNS) that both have, in the published order."""
    own = {_place(row): row for row in here}
    out = []
    for row in published:
        place = _place(row)
        if place not in own:
            continue
        decimals = METRICS[row["metric"]].decimals
        was, now = (shown(r["mean"], r["sd"], decimals) for r in (row, own[place]))
        a, b, sd = value_of(row["mean"]), value_of(own[place]["mean"]), value_of(row["sd"])
        if math.isnan(sd):
            line = (value_of(r["sd"]) for r in published if _place(r)[1:] == place[1:])
            sd = min((other for other in line if not math.isnan(other)), default=sd)
        # A value that is not defined (NaN) in one table alone compares false, and so differs.
        verdict: Verdict = "same" if was == now else "within" if abs(a - b) <= sd else "different"
        off = (b - a) / sd if sd > 0 else math.nan
        out.append(Judged(place, verdict, was, now, None if math.isnan(off) else off))
    return out


def _place(row: Mapping[str, Any]) -> Place:
    return row["row"], row["metric"], row["reference"]


def _other(published: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The keys of two configurations that differ, with both values; a key that one of them lacks has its default there."""
    absent = "the default"
    return [
        f"{key} {_spelled(here.get(key, absent))} instead of {_spelled(published.get(key, absent))}"
        for key in dict.fromkeys((*published, *here))
        if published.get(key, absent) != here.get(key, absent)
    ]


def _spelled(x: Any) -> str:
    return "none" if x is None else str(x)


def reproduced(config: Config, results: Path, data: Path) -> str:
    """What a finished run's Table 1 has to do with the published one: one line, and one for each of the first cells that differ.

    `results`: results/<preset>; `data`: docs/data. Raises UserError where a file of the run or of the published tables is
    missing or malformed.
    """
    folder = data / config.preset / "main"
    if not folder.is_dir():
        return f"Table 1: nothing is published for the preset {config.preset} ({folder}), so there is nothing to compare it with"
    about = read_json(folder / ABOUT)
    wanted = {"commit": str, "configuration": dict}
    if not isinstance(about, dict) or not all(isinstance(about.get(key), kind) for key, kind in wanted.items()):
        raise UserError(f"{folder / ABOUT}: names no commit or no configuration; restore it: git checkout -- {folder}")
    name = f"({folder}, commit {about['commit'][:7]})"
    here: list[Any] = read(results / "tables" / "table1.csv", COLUMNS)
    if other := _other(about["configuration"], relevant(config)):
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        return f"Table 1: not compared with the published one {name}, for this is another configuration: {'; '.join(other[:3])}{more}"
    published = table1.rows(folder / "metrics.csv", folder / "comparisons.csv", config)
    cells = judge(published, here)
    if not cells:
        raise UserError(f"{results}/tables/table1.csv: has no cell of the published table; make it again")
    count = Counter(cell.verdict for cell in cells)
    lost = len({_place(row) for row in published} ^ {_place(row) for row in here})
    text = (
        f"Table 1 against the published one {name}: {count['same']} cells the same, {count['within']} within the seeds' sd, "
        f"{count['different']} different" + (f", {lost} in one of the two alone" if lost else "")
    )
    lines = [_line(cell) for cell in cells if cell.verdict == "different"]
    rest = [f"  and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return "\n".join([text, *lines[:MOST], *rest])


def _line(cell: Judged) -> str:
    row, metric, reference = cell.place
    off = "" if cell.off is None else f" ({fixed(cell.off, 1)} sd)"
    return f"  {row}, {line_name(metric, reference)[:-2]}: published {cell.published}, here {cell.here}{off}"
