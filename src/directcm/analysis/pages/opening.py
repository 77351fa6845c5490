"""The report's first page: Table 1, Figure 2 and the verdicts, beside one another where there is room, else below.

A piece of HTML with its own style, which Snakemake's report shows as its opening text (workflow/report/workflow.rst).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from directcm.analysis.figures.pictures import images_of, shorten
from directcm.analysis.page import data_uri, plain, write_page
from directcm.analysis.tables import claims, table1
from directcm.config import Config
from directcm.errors import UserError
from directcm.runtime.artifacts import read_csv

if TYPE_CHECKING:
    from directcm.runtime.artifacts import Artifact

# Columns of Figure 2 that are shown, the pixels that a picture keeps, and how many models stand side by side.
MOST, PIXELS, ABREAST = 10, 128, 5
# Letters of a prompt.
PROMPT = 60

# Every rule begins with .opening, because the page around it is Snakemake's.


def _picture(artifact: Artifact, row: int) -> dict[str, Any]:
    """An evaluation row's image as a data URI: its own pixels where they are few, else PIXELS wide or high at most, as JPEG."""
    from PIL import Image

    with Image.open(artifact.file(f"images/{row:05d}.png")) as file:
        image = file.convert("RGB")
    small = max(image.size) <= PIXELS // 2
    buffer = io.BytesIO()
    if small:
        image.save(buffer, format="PNG", optimize=True)
    else:
        image.thumbnail((PIXELS, PIXELS), Image.Resampling.LANCZOS)
        image.save(buffer, format="JPEG", quality=88)
    source = data_uri(buffer.getvalue(), "png" if small else "jpeg")
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
    held = {name: images_of(shards) for name, shards in samples.items()}
    if not chosen or any(row not in held.get(model, {}) for model in models for row in chosen):
        raise UserError(f"{drawn}: shows images that the samples do not have; draw Figure 2 again")
    names = {row: shorten(prompts[row], PROMPT, 1) for row in chosen}
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
    teachers: str | Path | None = None,
) -> None:
    """Write the page: Table 1 of `metrics` and `compared`, the main comparison's metrics.csv and comparisons.csv; Figure 2 of
    `drawn` and `samples` (see `figure`); the verdicts of `claims_yaml` on a scope's `comparisons`, and on that over `teachers`, where there is one.
    """
    verdicts = claims.verdicts_of(claims_yaml, comparisons, config, teachers)
    table = table1.brief(metrics, compared, config)
    write_page(
        out_html, "pages/opening.html", title=f"Consistency models and Direct consistency models: preset {plain(config.preset)}",
        scale=claims.scale(config), table=table, models_down=table is not None and table.corner == "Model",
        figure=figure(drawn, samples), groups=claims.in_groups(verdicts, config), notes=claims.stand_ins(verdicts),
    )  # fmt: skip
