"""CM against Direct CM, prompt by prompt: the same noise and prompt behind each pair of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from directcm.analysis.page import plain, write_page
from directcm.analysis.selection import TEACHER, Evaluated, by_row, describe, select, steps_label
from directcm.artifacts import Artifact, write_csv
from directcm.config import Config
from directcm.errors import UserError
from directcm.specs import METHODS, METRICS

if TYPE_CHECKING:
    import numpy as np

A, B = METHODS["cm"], METHODS["direct_cm"]
COLUMNS = [
    "steps", "metric", "pair", "cm", "direct_cm", "difference", "low", "high", "level", "n", "n_seeds_cm",
    "n_seeds_direct_cm", "reading",
]  # fmt: skip


def per_sample(group: Sequence[Evaluated], metric: str) -> tuple[list[int], np.ndarray]:
    """Evaluation rows (m,), ascending, and a metric's values there averaged over seeds, float64 (m,)."""
    import numpy as np

    rows: list[int] | None = None
    columns = []
    for item in group:
        path = item.artifact.folder / "per_sample.csv"
        table = item.artifact.csv("per_sample.csv")
        try:
            values = {int(line["row"]): float(line[metric]) for line in table}
        except KeyError as error:
            raise UserError(f"{path}: has no column {error}; evaluate it again") from None
        except (TypeError, ValueError):
            raise UserError(f"{path}: a value of {metric} is not a number; evaluate it again") from None
        if len(values) != len(table) or not all(math.isfinite(v) for v in values.values()):
            raise UserError(f"{path}: {metric} has repeated rows or values that are not finite; evaluate it again")
        own = sorted(values)
        if rows is not None and own != rows:
            raise UserError(
                f"{path}: holds other rows than {group[0].artifact.folder / 'per_sample.csv'}; evaluate both on all rows"
            )
        rows = own
        columns.append([values[row] for row in own])
    if not rows:
        raise UserError(f"{group[0].artifact.folder / 'per_sample.csv'}: has no rows; evaluate it again")
    return rows, np.mean(np.array(columns, dtype=np.float64), axis=0)


def reading(metric: str, low: float, high: float) -> str:
    """In plain words, what an interval of CM − Direct CM says."""
    spec = METRICS[metric]
    if low <= 0 <= high:
        return "no difference shown: the interval contains 0"
    lower_wins = spec.better == "lower"
    winner = B if (low > 0) == lower_wins else A
    verb = "solves the ODE better here" if metric == "ode_error" else f"is better in {spec.title} here"
    return f"{winner} {verb}: the interval excludes 0"


def _available(group: Sequence[Evaluated], metric: str) -> bool:
    """Whether a group has the metric; half of its seeds having it is an error that `per_sample` reports."""
    return any(name == metric for e in group for name, _ in e.values)


BODY = """
<p>Settings: <bdi>{{ settings }}</bdi>.</p>
{% if rows %}
<table role="table">
<caption>Difference CM − Direct CM per metric, with a {{ level }} % interval from the paired bootstrap over prompts
({{ resamples }} resamples).</caption>
<thead role="rowgroup"><tr role="row">
<th scope="col" role="columnheader">Metric</th>
{% for head in ("CM", "Direct CM", "CM − Direct CM", "Interval", "n") %}
<th scope="col" role="columnheader" class="n">{{ head }}</th>
{% endfor %}
<th scope="col" role="columnheader">Reading</th>
</tr></thead>
<tbody role="rowgroup">
{% for row in rows %}
<tr role="row">
<th scope="row" role="rowheader">{{ row.title }}&nbsp;<span aria-hidden="true">{{ row.arrow }}</span><span class="hidden">({{ row.better }} is better)</span><br><span class="small">{{ row.steps }}</span></th>
<td role="cell" class="n" data-label="CM"><span>{{ row.cm }}</span></td>
<td role="cell" class="n" data-label="Direct CM"><span>{{ row.direct_cm }}</span></td>
<td role="cell" class="n" data-label="CM − Direct CM"><span>{{ row.difference }}</span></td>
<td role="cell" class="n" data-label="Interval"><span class="value">[{{ row.low }}, {{ row.high }}]</span></td>
<td role="cell" class="n" data-label="n prompts"><span>{{ row.n }}</span></td>
<td role="cell" data-label="Reading"><span>{{ row.reading }}</span></td>
</tr>
{% endfor %}
</tbody>
</table>
{% else %}
<p>{{ empty }}</p>
{% endif %}
<h2>How to read it</h2>
<ul>
<li>Each prompt's value is first averaged over the training seeds ({{ seeds }}); n counts prompts, each with its own initial noise.</li>
<li>The interval is over prompts, for these seeds: it says how sure the difference between these trained students is. It does
not say how much another seed would change it; for that see the sd in Table 1.</li>
<li>Intervals are not adjusted for the number of metrics.</li>
<li>Distances between sets of samples (FD, KID) have no value per prompt and are not in this table.</li>
</ul>
"""


def paired(
    metrics: Sequence[Artifact], config: Config, out_csv: str | Path, out_html: str | Path
) -> list[dict[str, Any]]:
    """Write the paired comparison as CSV (COLUMNS) and HTML; returns the CSV's rows.

    One line per number of sampling steps and per-sample metric that both methods have. Without both methods
    in the grid the table is empty and says so.
    """
    groups = by_row([e for e in select(metrics, config) if e.row != TEACHER])
    level, resamples = config.statistics.level, config.statistics.bootstrap
    rows: list[dict[str, Any]] = []
    seeds: dict[str, int] = {}
    for steps in sorted({k for _, k in groups}):
        a, b = groups.get((A, steps)), groups.get((B, steps))
        if not a or not b:
            continue
        seeds = {A: len(a), B: len(b)}
        for metric in config.metric_names():
            if not METRICS[metric].per_sample or not (_available(a, metric) and _available(b, metric)):
                continue
            rows_a, values_a = per_sample(a, metric)
            rows_b, values_b = per_sample(b, metric)
            if rows_a != rows_b:
                raise UserError(
                    f"{b[0].artifact.folder / 'per_sample.csv'}: holds other rows than "
                    f"{a[0].artifact.folder / 'per_sample.csv'}; evaluate both on all rows"
                )
            from directcm.metrics.bootstrap import difference_interval  # it pulls in scipy

            difference = values_a - values_b
            low, high = difference_interval(values_a, values_b, resamples=resamples, level=level, seed=config.seed)
            numbers = {
                "cm": values_a.mean(), "direct_cm": values_b.mean(), "difference": difference.mean(), "low": low, "high": high,
            }  # fmt: skip
            rows.append(
                {
                    "steps": steps, "metric": metric, "pair": f"{A} - {B}",
                    **{k: float(f"{float(v):.10g}") for k, v in numbers.items()},
                    "level": level, "n": len(rows_a), "n_seeds_cm": len(a), "n_seeds_direct_cm": len(b),
                    "reading": reading(metric, float(low), float(high)),
                }
            )  # fmt: skip
    write_csv(out_csv, rows, COLUMNS)
    _html(out_html, rows, config, seeds)
    return rows


def _html(path: str | Path, rows: Sequence[dict[str, Any]], config: Config, seeds: dict[str, int]) -> None:
    shown = []
    for row in rows:
        spec = METRICS[row["metric"]]
        digits = spec.decimals + 1  # differences are smaller than what they are differences of

        def text(value: float, digits: int = digits, signed: bool = False) -> str:
            return f"{value:{'+' if signed else ''}.{digits}f}".replace("-", "−")

        shown.append(
            {
                "title": spec.title, "arrow": "↓" if spec.better == "lower" else "↑", "better": spec.better,
                "steps": steps_label(row["steps"]), "cm": text(row["cm"]), "direct_cm": text(row["direct_cm"]),
                "difference": text(row["difference"], signed=True), "low": text(row["low"], signed=True),
                "high": text(row["high"], signed=True), "n": f"{row['n']:,}", "reading": row["reading"],
            }
        )  # fmt: skip
    both = "only one of the two methods is in the grid" if not seeds else "no per-prompt metric is configured"
    write_page(
        path, BODY, title="CM against Direct CM, prompt by prompt", rows=shown, settings=plain(describe(config)),
        level=f"{100 * config.statistics.level:g}", resamples=f"{config.statistics.bootstrap:,}",
        seeds=", ".join(f"{name}: {n}" for name, n in seeds.items()) or "none",
        empty=f"There is nothing to pair: {both}.",
    )  # fmt: skip
