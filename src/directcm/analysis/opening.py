"""The report's first page: Table 1, Figure 2 and the verdicts, beside one another where there is room, else below.

A piece of HTML with its own style, which Snakemake's report shows as its opening text (workflow/report/workflow.rst).
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from directcm.analysis import claims, figure_samples, table
from directcm.analysis.page import fragment, plain
from directcm.artifacts import read_csv, write_text
from directcm.config import Config
from directcm.errors import UserError

if TYPE_CHECKING:
    from directcm.artifacts import Artifact

# Columns of Figure 2 that are shown, the pixels that a picture keeps, and how many models stand side by side.
MOST, PIXELS, ABREAST = 10, 128, 5
# Letters of a prompt.
PROMPT = 60

# Every rule begins with .opening, because the page around it is Snakemake's.
STYLE = """
.opening { --ink: #1a1a1a; --soft: #595959; --line: #d0d0d0; container-type: inline-size; width: 100%; color: var(--ink);
  font: 13px/1.4 system-ui, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; overflow-wrap: break-word; }
.opening * { box-sizing: border-box; }
.opening h1 { margin: 0 0 .3rem; font-size: 1.35rem; line-height: 1.25; font-weight: 600; color: inherit; }
.opening h2 { margin: 0 0 .5rem; font-size: 1rem; line-height: 1.3; font-weight: 600; color: inherit; }
.opening h3 { margin: .9rem 0 .1rem; font-size: .95rem; line-height: 1.3; font-weight: 600; color: inherit; }
.opening p, .opening figcaption { margin: .5rem 0 0; font-size: 12px; line-height: 1.4; color: var(--soft); }
.opening header p { max-width: 60rem; margin: 0; overflow-wrap: anywhere; }
.opening figure { margin: 0; }
.opening strong { color: inherit; font-weight: 700; }
.opening section { min-width: 0; }
.opening .parts { display: grid; gap: 1.75rem; margin-top: 1rem; }
.opening table { width: 100%; margin: 0; border-collapse: collapse; font-size: 13px; line-height: 1.3; table-layout: auto;
  font-variant-numeric: tabular-nums; border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink); }
.opening th, .opening td { padding: .3rem .25rem; text-align: left; vertical-align: top; font-weight: 400; color: inherit; }
.opening tr > :first-child { padding-left: 0; }
.opening tr > :last-child { padding-right: 0; }
.opening thead, .opening tbody tr { border: 0; }
.opening thead th { vertical-align: bottom; font-weight: 600; }
.opening thead tr:last-child > * { border-bottom: 1px solid var(--ink); }
.opening thead tr.over > * { border-bottom: 0; padding-bottom: 0; }
.opening tbody th { font-weight: 600; }
.opening tbody tr + tr > * { border-top: 1px solid var(--line); }
.opening .n { text-align: right; }
.opening .group { text-align: center; }
.opening .bar { display: block; border-bottom: 1px solid var(--ink); padding-bottom: .1rem; }
.opening .small, .opening .pm { color: var(--soft); font-size: 11px; font-weight: 400; }
.opening .table1 thead .small { line-height: 1.25; }
.opening .table1 tbody th .small { white-space: nowrap; }
/* Beside a model's name there is too little room for all metrics: they stand below it. */
.opening .models_down table, .opening .models_down thead, .opening .models_down tbody { display: block; }
.opening .models_down tr { display: grid; grid-template-columns: repeat(var(--columns), minmax(2.7rem, 1fr)); }
.opening .models_down th[colspan="2"] { grid-column: span 2; }
.opening .models_down thead th { align-self: end; padding-left: 0; padding-right: 0; font-size: 10px; }
.opening .models_down thead tr > :first-child, .opening .models_down tbody th br { display: none; }
.opening .models_down tbody th { grid-column: 1 / -1; padding: .25rem 0 0; }
.opening .models_down tbody th .small { margin-left: .4rem; }
.opening .models_down tbody td { padding: 0 0 .25rem; font-size: 12px; }
.opening .models_down tbody tr + tr > td { border-top: 0; }
.opening .models_down .group { padding-left: .4rem; }
.opening .models_down .small, .opening .models_down .pm { font-size: 10.5px; }
.opening .value { white-space: nowrap; }
.opening .pm { display: block; }
.opening .paper { display: block; margin-top: .15rem; color: #7a4f00; font-size: 11px; font-style: italic; }
.opening .none { color: var(--soft); }
.opening .scroll { overflow-x: auto; }
.opening .hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.opening .figure2 table { border: 0; font-size: 12px; }
.opening .figure2 th, .opening .figure2 td { border: 0 !important; padding: 1px 2px; vertical-align: middle; }
.opening .figure2 thead th { vertical-align: bottom; text-align: center; padding-bottom: 3px; }
.opening .figure2 tbody th { width: 6.5rem; min-width: 5.5rem; font-weight: 400; line-height: 1.2; padding-right: .5rem; overflow-wrap: anywhere; }
.opening .figure2 tr > :first-child { text-align: left; }
.opening .figure2 td { width: 62px; }
.opening .figure2 img { display: block; width: 100%; max-width: 58px; height: auto; margin: 0 auto; border: 1px solid #b0b0b0;
  border-radius: 0; }
.opening .figure2 img.pixels { image-rendering: pixelated; }
.opening .figure2 .down td { width: 8%; padding: 1px; }
.opening .figure2 .down tbody th { width: auto; min-width: 4.5rem; font-weight: 600; font-size: 11px; overflow-wrap: break-word; }
.opening .figure2 .down thead th span { writing-mode: vertical-rl; transform: rotate(180deg); display: inline-block; max-height: 9.5rem;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-weight: 400; font-size: 11px; }
.opening .verdicts th { font-weight: 400; overflow-wrap: anywhere; }
.opening .verdicts thead th { font-weight: 600; }
.opening .verdicts td { width: 38%; padding-left: .5rem; }
.opening .verdicts .counts { margin: 0 0 .3rem; }
.opening .verdicts h3:first-of-type { margin-top: 0; }
.opening .more { display: grid; gap: 1.75rem; margin-top: 1.75rem; }
@container (min-width: 600px) {
  .opening .parts { grid-template-columns: minmax(0, 1.2fr) minmax(0, 1fr); }
  .opening .parts > .verdicts { grid-column: 1 / -1; }
  .opening .more { grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); }
}
@container (min-width: 920px) {
  .opening .parts { grid-template-columns: minmax(0, 1.25fr) minmax(0, .95fr) minmax(0, 1.05fr); }
  .opening .parts.wide { grid-template-columns: minmax(0, 1.5fr) minmax(0, 1.05fr) minmax(0, 1fr); }
  .opening .parts > .verdicts { grid-column: auto; }
}
@container (max-width: 599.9px) {
  .opening .models_down thead th, .opening .models_down .small { font-size: 9px; }
  .opening .models_down tbody td { font-size: 11px; }
  .opening .models_down .pm { font-size: 9px; }
}
"""

BODY = """
{% macro verdicts(group) %}
<h3>{{ group.title }}</h3>
<p class="counts">{{ group.counts }}.</p>
<table>
<thead><tr><th scope="col">Claim</th><th scope="col">Verdict</th></tr></thead>
<tbody>
{% for row in group.rows %}
<tr><th scope="row"><bdi>{{ row.says }}</bdi></th><td><span aria-hidden="true">{{ row.symbol }}</span> <strong>{{ row.text }}</strong>{% if row.p %}<br><span class="small">p (Holm) {{ row.p }}</span>{% endif %}</td></tr>
{% endfor %}
</tbody>
</table>
{% endmacro %}
<style>{{ style }}</style>
<div class="opening">
<header>
<h1>{{ title }}</h1>
<p><bdi>{{ scale }}</bdi></p>
</header>
<div class="parts{{ ' wide' if table and table.models_down else '' }}">
<section class="table1{{ ' models_down' if table and table.models_down else '' }}"{% if table %} style="--columns: {{ table.columns }}"{% endif %}>
<h2>Table 1. Teacher, CM and Direct CM</h2>
{% if table %}
<div class="scroll" role="region" aria-label="Table 1" tabindex="0">{{ table.html }}</div>
{% for note in table.notes %}
<p>{{ note }}</p>
{% endfor %}
<p>With the paper's numbers, intervals and tests: 2 Tables in the menu.</p>
{% else %}
<p>This run has none: no metric of Table 1 is among its metrics. The others stand under 2 Tables in the menu.</p>
{% endif %}
</section>
<section class="figure2">
<h2>Figure 2. Samples</h2>
<figure>
<div class="scroll" role="region" aria-label="Figure 2" tabindex="0">
<table class="{{ 'down' if figure.down else 'across' }}">
<thead><tr><td></td>
{% for head in figure.heads %}
<th scope="col"><span>{{ head }}</span></th>
{% endfor %}
</tr></thead>
<tbody>
{% for row in figure.rows %}
<tr><th scope="row">{{ row.head }}</th>
{% for picture in row.pictures %}
<td><img{{ ' class=pixels' if picture.small else '' }} src="{{ picture.source }}" width="{{ picture.width }}" height="{{ picture.height }}" alt="{{ picture.alt }}"></td>
{% endfor %}
</tr>
{% endfor %}
</tbody>
</table>
</div>
<figcaption>Each {{ 'column' if figure.down else 'row' }} is one initial noise and one prompt, the same for every model.{{ figure.more }} The figure itself: 3 Figures in the menu.</figcaption>
</figure>
</section>
<section class="verdicts">
<h2>Verdicts</h2>
{{ verdicts(groups[0]) }}
{% for note in notes %}
<p>{{ note }}</p>
{% endfor %}
<p>What each verdict rests on, and why a claim was not run or tested: 1 Claims in the menu.</p>
</section>
</div>
{% if groups | length > 1 %}
<div class="more verdicts">
{% for group in groups[1:] %}
<section>
{{ verdicts(group) }}
</section>
{% endfor %}
</div>
{% endif %}
</div>
"""


def _picture(artifact: Artifact, row: int) -> dict[str, Any]:
    """An evaluation row's image as a data URI: its own pixels where they are few, else PIXELS wide or high at most, as JPEG."""
    from PIL import Image

    with Image.open(artifact.file(f"images/{row:05d}.png")) as file:
        image = file.convert("RGB")
    small = max(image.size) <= PIXELS // 2
    if not small:
        image.thumbnail((PIXELS, PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small:
        image.save(buffer, format="PNG", optimize=True)
    else:
        image.save(buffer, format="JPEG", quality=88)
    source = f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
    return {"source": source, "small": small, "width": image.width, "height": image.height}


def figure(drawn: str | Path, samples: Mapping[str, Sequence[Artifact]]) -> dict[str, Any]:
    """Figure 2 as a table of pictures: heads, rows of pictures with theirs, and whether models stand below one another.

    `drawn` is the figure's own CSV, which says what it shows; `samples` are those that it was drawn from. Its first MOST columns.
    Raises UserError where the CSV names a model or an image that is not among the samples.
    """
    shown = read_csv(drawn)
    models = list(dict.fromkeys(line["model"] for line in shown))
    prompts = {int(line["row"]): line["prompt"] for line in shown}
    chosen = list(prompts)[:MOST]
    held = {name: figure_samples.images_of(shards) for name, shards in samples.items()}
    if not chosen or any(row not in held.get(model, {}) for model in models for row in chosen):
        raise UserError(f"{drawn}: shows images that the samples do not have; draw Figure 2 again")
    names = {row: figure_samples.shorten(prompts[row], PROMPT, 1) for row in chosen}
    pictures = {
        (model, row): _picture(held[model][row], row) | {"alt": f"{plain(model)}: {names[row]}"}
        for model in models
        for row in chosen
    }
    down = len(models) > ABREAST
    across = [plain(model) for model in models]
    if down:
        rows = [{"head": plain(m), "pictures": [pictures[m, row] for row in chosen]} for m in models]
    else:
        rows = [{"head": names[row], "pictures": [pictures[m, row] for m in models]} for row in chosen]
    more = f" The first {len(chosen)} of {len(prompts)}." if len(prompts) > len(chosen) else ""
    return {"down": down, "heads": list(names.values()) if down else across, "rows": rows, "more": more}


def opening(
    metrics: str | Path,
    compared: str | Path,
    claims_yaml: str | Path,
    comparisons: str | Path,
    drawn: str | Path,
    samples: Mapping[str, Sequence[Artifact]],
    config: Config,
    out_html: str | Path,
) -> None:
    """Write the page: Table 1 of `metrics` and `compared`, the main comparison's metrics.csv and comparisons.csv; Figure 2 of
    `drawn` and `samples` (see `figure`); the verdicts of `claims_yaml` on a scope's `comparisons`.
    """
    from markupsafe import Markup

    verdicts = claims.verdicts_of(claims_yaml, comparisons, config)
    brief = table.brief(metrics, compared, config)
    shown = None if brief is None else vars(brief) | {"html": Markup(brief.html)}
    write_text(
        out_html,
        fragment(
            BODY,
            style=Markup(STYLE),
            title=f"Consistency models and Direct consistency models: preset {plain(config.preset)}",
            scale=claims.scale(config),
            table=shown,
            figure=figure(drawn, samples),
            groups=claims.in_groups(verdicts, config),
            notes=claims.stand_ins(verdicts),
        ),
    )
