"""Why, C and E: every arm's metrics side by side. Means with 95 % intervals over training seeds (Student's t, prompts fixed); small: each seed. In C
Direct CM on other labels, and either loss after the other; in E where the start points lie, what their losses weigh, and losses or students switched at τ.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from directcm.analysis.figures import arms as of_arms
from directcm.analysis.figures import chart, style
from directcm.analysis.figures.arms import Arm
from directcm.config.specs import METHODS
from directcm.errors import UserError

EXHIBITS = {
    "why_targets": {
        "title": "Why, C: the target swapped",
        "takes": "arms",
        "experiments": "C",
        "category": "1 Why",
        "place": 53,
    },
    "why_loss": {
        "title": "Why, E: where the loss looks",
        "takes": "arms",
        "experiments": "E",
        "category": "1 Why",
        "place": 55,
    },
}

# Parts that E is about: of the Fréchet distance the mean's, of the ODE error the gain's.
PARTS = (("fid_mean", "fd_tiny_mean"), ("ode_gain",))
COLORS = {"cm": style.LOOKS["CM"].color, "direct_cm": style.LOOKS["Direct CM"].color}


@style.styled()
def draw(arms_csv: Sequence[str | Path], *files: str | Path, space: str = "latent") -> None:
    """One panel a metric, one line an arm. `files`: PDF, PNG and CSV to write."""
    found = of_arms.read(arms_csv)
    panels = of_arms.shown(found)
    if any(arm.fields["density"] != "uniform" for arm in found):
        panels = [key for key in panels if key[0] not in of_arms.ALIGNMENTS]
        panels += [key for names in PARTS if (key := of_arms.first(found, names, "teacher")) is not None]
    if not panels:
        raise UserError(f"{arms_csv[0]}: has no metric that this figure shows")
    groups = _groups(found)
    count = sum(len(own) + 0.6 for own in groups.values())
    made = chart.panels(1, len(panels), (style.PAGE, 0.85 + 0.155 * count), (0.05, 0.05))
    for column, (axes, (metric, reference)) in enumerate(zip(made.grid[0], panels, strict=True)):
        y, ticks = 0.0, []
        for place, (group, own) in enumerate(groups.items()):
            if place:
                axes.axhline(y - 0.3, color="#d0d0d0", linewidth=0.6, zorder=1)
                y += 0.6
            for arm in own:
                values = [*arm.of(metric, reference).values()]
                if values:
                    color, filled = _look(arm)
                    of_arms.dots(axes, y, values, color, filled=filled)
                    made.lines.append(of_arms.line(arm, metric, reference, panel=group, series=label(arm)))
                ticks.append((y, label(arm)))
                y += 1
        axes.set_yticks([at for at, _ in ticks], [text for _, text in ticks] if column == 0 else [""] * len(ticks))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(y - 0.4, -0.6)
        axes.margins(x=0.1)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, min_n_ticks=2))
        axes.grid(axis="x", color="#ececec", linewidth=0.5, zorder=0)
        chart.title(axes, _narrow(of_arms.title(metric, reference, space)))
    kinds = [style.handle(style.Look(color, "s", "-"), METHODS[name]) for name, color in COLORS.items()]
    made.legend(
        [
            *kinds,
            style.handle(style.Look(style.SOFT, "s", "-"), "other methods"),
            style.mark_handle("on a CM's labels, or sampled by two students", "s"),
        ][: 4 if _open(found) else 3]
    )
    made.lines = of_arms.written(made.lines)
    made.save(of_arms.COLUMNS, *files)


def _narrow(text: str) -> str:
    """A title over two lines: the unit or the reference below."""
    return text.replace(" (", "\n(", 1) if " (" in text else text.replace(" to ", "\nto ", 1)


def _open(found: Sequence[Arm]) -> bool:
    return any(not _look(arm)[1] for arm in found)


def _look(arm: Arm) -> tuple[str, bool]:
    """An arm's colour, by its method, and whether its mark is full."""
    plain = arm.fields["labels"] == "ode" and not arm.fields["relay"]
    return COLORS.get(arm.fields["method"], style.SOFT), plain


def _groups(found: Sequence[Arm]) -> dict[str, list[Arm]]:
    """Arms that are read together: of one length of training, or sampled by two students."""
    out: dict[str, list[Arm]] = {}
    for arm in found:
        out.setdefault("two students" if arm.fields["relay"] else f"{arm.number('steps'):.0f} steps", []).append(arm)
    return out


def label(arm: Arm) -> str:
    """An arm in a few words, from what it is."""
    fields = arm.fields
    name = of_arms.method(arm)
    if fields["relay"]:
        return f"{name}, below τ {METHODS[fields['relay']]}"
    if fields["labels"] != "ode":
        teaching, _, adapter = fields["labels"].partition("-")
        name += f" on a {'full ' if adapter == 'full' else ''}{METHODS[teaching]}'s labels"
    elif fields["adapter"] == "full":
        name += ", all weights"
    parts = [f"{100 * float(fields['density']):g} % at t ≥ 900"] if fields["density"] != "uniform" else []
    parts += ["weight α²/σ²"] if fields["weight"] == "snr" else []
    if fields["method"] in ("cm", "direct_cm") and fields["labels"] == "ode" and arm.name.startswith("the "):
        parts.append("the labelling student")
    steps = f", {arm.number('steps'):.0f} steps" if arm.number("steps") > 250 else ""
    return name + (f" ({', '.join(parts)})" if parts else "") + steps
