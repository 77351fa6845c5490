"""ODE errors of finished students against what they have to beat: conditional mean, affine map of the noise, untrained start and one
guided step of the teacher, tested over seeds and prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from directcm.analysis.data.selection import describe, main_setting, select_axis, steps_label
from directcm.analysis.data.tidy import COMPARISON_COLUMNS, ROWS, TO_BEAT, frame, number, save
from directcm.analysis.page import plain
from directcm.analysis.tables.cells import AHEAD, BEATEN, LEVEL, significant
from directcm.analysis.tables.grid import WHAT
from directcm.analysis.tables.sheet import Cell, Head, Row, Sheet, Tex
from directcm.analysis.tables.sheet import write as write_sheets
from directcm.analysis.tables.text import fixed, shown_p
from directcm.config import Config
from directcm.config.specs import METRICS
from directcm.errors import UserError

EXHIBITS = {
    "table_baselines": {
        "title": "ODE error against baselines",
        "takes": "comparisons",
        "needs": "baselines",
        "place": 7,
    }
}

COLUMNS = [
    "row", "steps", "baseline", "student", "without_training", "difference", "low", "high", "level", "p", "p_prompts", "n",
    "n_seeds", "seeds_agree", "verdict",
]  # fmt: skip
SAID = {BEATEN: "beats it", AHEAD: "is worse", LEVEL: LEVEL}


def verdict(row: Mapping[str, Any], alpha: float) -> str:
    """One of cells.VERDICTS on a baseline, from a line of comparisons.csv."""
    return LEVEL if not significant(row, alpha) else BEATEN if row["difference"] < 0 else AHEAD


def rows(comparisons: str | Path, config: Config) -> list[dict[str, Any]]:
    """The lines of its CSV (COLUMNS); nothing is written."""
    main = main_setting(config)
    found = select_axis(frame(comparisons, COMPARISON_COLUMNS), main)
    found = found[(found["what"] == "baseline") & (found["a_step"] == main.steps)]
    if found.empty:
        raise UserError(
            f"{comparisons}: no ODE error is compared with a baseline; compare this setting and collect again"
        )
    lines = [
        {
            **{name: line[name] for name in ("difference", "low", "high", "level", "p", "p_prompts")},
            **{name: number(line[name]) for name in ("n", "n_seeds", "seeds_agree")},
            "row": line["a"], "steps": int(line["sampling_steps"]), "baseline": line["b"], "student": line["mean_a"],
            "without_training": line["mean_b"], "verdict": verdict(line, config.statistics.alpha),
        }
        for line in found.to_dict("records")
    ]  # fmt: skip
    lines.sort(key=lambda line: (ROWS.index(line["row"]), line["steps"], TO_BEAT.index(line["baseline"])))
    return [{name: line[name] for name in COLUMNS} for line in lines]


def write(comparisons: str | Path, config: Config, out: Path) -> list[dict[str, Any]]:
    """Write `rows` as CSV, LaTeX and HTML; returns them."""
    found = rows(comparisons, config)
    save(out, found, COLUMNS)
    decimals = METRICS["ode_error"].decimals
    groups: dict[str, list[Row]] = {}
    for row in found:
        sure = row["verdict"] != LEVEL
        difference, low, high = (fixed(row[name], decimals, True) for name in ("difference", "low", "high"))
        cells = [
            Cell(fixed(row["student"], decimals), row["verdict"] == BEATEN),
            Cell(fixed(row["without_training"], decimals), row["verdict"] == AHEAD),
            Cell(difference),
            Cell(f"[{low}, {high}]"),
            Cell(shown_p(row["p"]), sure),
            Cell(shown_p(row["p_prompts"]), sure),
            Cell(f"{row['seeds_agree']} of {row['n_seeds']}"),
            Cell(SAID[row["verdict"]]),
        ]
        groups.setdefault(f"{row['row']}, {steps_label(row['steps'])}", []).append(Row(Head(row["baseline"]), cells))
    heads = ["Student", "Baseline", "Student − baseline", "Interval", "p", "p, prompts", "Seeds agree"]
    about: dict[str, Any] = {
        "name": "table_baselines", "title": "ODE error against baselines", "settings": plain(describe(config)), "corner": "Baseline",
        "heads": [*(Head(name, label=name) for name in heads), Head("The student", kind="words", label="The student")],
        "groups": list(groups.items()), "notes": _notes(found, config),
    }  # fmt: skip
    caption = "ODE error (↓ lower is better) of finished students, and of what takes no training, on the same noise."
    write_sheets(out, Sheet(**about, caption=caption), Sheet(**about, caption=Tex("ODE error against baselines.")))
    return found


def _notes(found: Sequence[Mapping[str, Any]], config: Config) -> list[str]:
    there = [name for name in TO_BEAT if any(row["baseline"] == name for row in found)]
    seeds = " or ".join(str(n) for n in sorted({row["n_seeds"] for row in found}))
    level = " or ".join(dict.fromkeys(f"{100 * row['level']:g}" for row in found))
    return [
        "; ".join(f"“{name}” is {WHAT[name]}" for name in there)
        + ". The first two are fitted on the teacher's samples of a second noise, and judged on the evaluation's like everything here.",
        "A conditional mean is that of the prompt, of its label or of all rows, whichever predicts the second noise's samples best when "
        "each is left out; metrics.json of the baseline says which.",
        f"Difference: mean over {seeds} training seeds, paired by prompt; {level} % interval and p over seeds × prompts, crossed (a baseline has "
        "no seeds). p, prompts: for these trained students alone, paired bootstrap over prompts. Bold: the better where p is "
        f"at most {config.statistics.alpha:g}, not adjusted for the number of lines.",
        "A student that does not beat the affine map knows less of where the teacher's ODE ends than a linear function of the noise.",
    ]
