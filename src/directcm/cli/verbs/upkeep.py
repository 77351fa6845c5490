"""The verbs around a run: what it will cost, what came out, its records, and processes that work together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from directcm.cli import options as o
from directcm.errors import UserError

CONFIGURATION = (Path("config.yaml"),)
Files = Annotated[Sequence[Path], o.Option("one over the other, later ones win", least=1)]
Preset = Annotated[Path, "results/<preset>, from the repository's top"]
_DECLARE = "instead: declare the code of OLD, results/<preset> of another checkout, the same where the bytes are"
_WHOSE = "results/<preset> of a finished run, whose tidy tables are copied into docs/data first"
Finished = Annotated[Path, o.Option(_WHOSE, flag="--from", metavar="RESULTS")]
Folder = Annotated[Path | None, "default: results/<preset>"]


def show(table: Annotated[Path, "tables/table1.csv, claims/SCOPE.csv or why/outcomes.csv"], /) -> None:
    """Print Table 1, the verdicts, or the outcomes of the experiments on why."""
    from directcm.analysis.tables import claims, outcomes, table1
    from directcm.runtime.artifacts import read_csv

    first = (read_csv(table) or [{}])[0]
    if "verdict" in first:
        print(claims.text(table))
    elif {"row", "metric", "mean"} <= first.keys():
        print(table1.text(table))
    elif {"experiment", "outcome", "decides"} <= first.keys():
        print(outcomes.text(table))
    else:
        raise UserError(
            f"{table}: neither Table 1, claims nor outcomes; show reads tables/table1.csv, claims/SCOPE.csv and why/outcomes.csv"
        )


def reproduced(
    *,
    configfile: Files = CONFIGURATION,
    results: Folder = None,
    data: Annotated[Path, "the published tables; default: docs/data"] = Path("docs/data"),
) -> None:
    """Compare a run's Table 1 with the published one, cell by cell."""
    from directcm.analysis.pages.reproduced import reproduced
    from directcm.config import load_config

    config = load_config(*configfile)
    print(reproduced(config, results or Path("results") / config.preset, data))


def publish(*, results: Finished | None = None) -> None:
    """Write the published tables into README.md and docs/results.md, from docs/data."""
    from directcm.analysis.pages.publish import publish

    for name in publish(Path(), results):
        print(f"written: {name}")


def trace(
    file: Annotated[Path, "an artefact's folder, or any file in it, such as metrics.json"],
    /,
    *,
    results: Annotated[Path | None, "where to look for what it was made from; default: the results around it"] = None,
) -> None:
    """Print what a result was made from, back to the data, and what has changed since."""
    from directcm.analysis.pages import trace

    links = list(trace.chain(file, results))
    for link in links:
        print(trace.text(link))
    lost = [link for link in links if link.state != trace.UNCHANGED and not link.seen]
    if lost:
        raise UserError(
            f"{file}: {len(lost)} of its links are no longer what they were, first {lost[0].name}; run snakemake to make them again"
        )


def _after_dashes(words: Sequence[str]) -> Sequence[str]:
    return words[1:] if words[:1] == ("--",) else words


def plan(
    scope: Annotated[
        Literal["main", "paper", "why"], "default: paper, everything; why: its students' further sets too"
    ] = "paper",
    /,
    *,
    configfile: Files = CONFIGURATION,
    results: Folder = None,
    rates: Annotated[
        Sequence[Path], "measured rates, later ones win; those of the repository and of rehearsals here"
    ] = (Path("benchmarks/rates.csv"), Path("rehearsals/rates.csv")),
) -> None:
    """Print what a configuration costs, and what of it is done."""
    from directcm.cli import plan
    from directcm.config import load_config

    config = load_config(*configfile)
    print(plan.plan(config, o.runs_of(config, scope), results or Path("results") / config.preset, rates, scope))


def rehearse(
    *flags_of_snakemake: Annotated[str, o.Option("such as --cores 2, or --profile slurm", metavar="-- FLAG …")],
    size: Annotated[Literal["small", "full"], "of stand-ins: SDXL's own sizes, or what a laptop runs"] = "small",
    configfile: Files = CONFIGURATION,
    own: Annotated[bool, "with the preset's own teacher, data and weights, which are in place"] = False,
) -> None:
    """Run a preset's pipeline with small counts and stand-ins, and print what it costs."""
    from directcm.cli import rehearse

    print(rehearse.rehearse(configfile, size, own, _after_dashes(flags_of_snakemake)))


def record(results: Preset, /) -> None:
    """Put Snakemake's records of results among them, for DVC to version."""
    from directcm.cli import record

    record.save(results)


def restore(
    results: Preset,
    /,
    *,
    changed: Annotated[bool, "only where DVC has brought another record than the last here"] = False,
) -> None:
    """Give Snakemake its records of results back."""
    from directcm.cli import record

    if text := record.restore(results, changed):
        print(text)


def adopt(
    results: Preset,
    /,
    *,
    dry_run: Annotated[bool, "only say what would be done"] = False,
    declare: Annotated[Path | None, o.Option(_DECLARE, metavar="OLD")] = None,
    release: Annotated[str | None, o.Option("with --declare: the release that says so", metavar="VERSION")] = None,
    compared: Annotated[str | None, o.Option("with --declare: how, in one line", metavar="TEXT")] = None,
) -> None:
    """Keep results of older code that a release declares unchanged, and note it."""
    from directcm.cli import adopt

    if declare is None:
        lines = adopt.adopt(results, dry_run)
    elif not (release and compared):
        raise UserError("adopt: --declare needs --release and --compared: what was compared, and how, in one line")
    else:
        lines = adopt.declare(declare, results, release, compared)
    print("\n".join(lines))


def stages(
    scope: Annotated[Literal["main", "paper"], "what was run: the main comparison, or the whole grid"],
    /,
    *,
    configfile: Annotated[Files, "config.yaml and the preset's overlay"],
    without: Annotated[
        Sequence[str], o.Option("steps between whose bytes are left out: targets, samples …", metavar="KIND")
    ] = (),
) -> None:
    """Derive records/<preset>/dvc.yaml from dvc.yaml."""
    from directcm.cli import record
    from directcm.config import load_config

    config = load_config(*configfile)
    record.write_stages(config, o.runs_of(config, scope), configfile[-1], scope, without)


def launch(
    *verb_and_flags: Annotated[str, o.Option("train with its flags", metavar="-- VERB …")],
    processes: Annotated[o.Natural, "of all nodes together; one a GPU"],
    nodes: Annotated[o.Natural, "nodes of the SLURM job"] = 1,
) -> None:
    """Run a verb as several processes that train together."""
    from directcm.runtime import launch

    argv = _after_dashes(verb_and_flags)
    if not argv:
        raise UserError("launch: no verb given; say for example directcm launch --processes 2 -- train …")
    launch.launch(processes, nodes, argv)


def schema(*, job: o.Job) -> None:
    """Describe the configuration: schema (.json), page (.md) or commented defaults (.yaml)."""
    from directcm.config.reference import render
    from directcm.runtime.artifacts import write_text

    write_text(job.out, render(job.out.suffix))
