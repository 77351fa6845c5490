"""What the analysis rules share: the scopes (`snakemake` makes "main", `snakemake paper` everything), and what each makes."""


def read_by_tables(students):
    """What tables read of the configuration: nothing about how teacher and extractors were trained, and these `students`."""
    block = CONFIG.model_dump(
        mode="json",
        exclude={
            "teacher": {name for name, kind in TEACHERS.items() if not kind.pinned},
            "encode": True,
            "extractors": True,
            "editing": True,
            "figures": True,
            "convergence": True,
        },
    )
    if students is not None:
        block["students"] = students
    return json.dumps(block, sort_keys=True)


def line_of(run):
    """A run as a line of `students` of its own."""
    return {
        **{name: [value] for name, value in run.axes().items()},
        "snapshots": CONFIG.snapshots(run),
        "sampling_steps": [k for step, k in SETS[run][0] if step == run.steps],
        "errors": False,
    }


# One more value in a sweep is no news to the main comparison's tables; the verdicts say what the grid has and was not run.
READ = {
    "main": read_by_tables([line_of(run) for run in MAIN_RUNS]),
    "paper": read_by_tables(None),
}
TABLES = f"{OUT}/tables"
FIGURES = f"{OUT}/figures"
BY_SETTING = {}
for _run in ALL_RUNS:
    BY_SETTING.setdefault(_run.setting, []).append(_run)


# What claims compare across settings: setting → which other, and its runs.
BESIDE = {}
for _run, _twin, _other in ACROSS:
    _found = BESIDE.setdefault(_run.setting, {})
    _found.setdefault("{}:{}~{}".format(*_other), []).append(_twin)


def students_of(wildcards, pattern):
    """A path per student of a setting, and of those that it is compared with; in more sampling steps, where that is asked, too."""
    setting = spelled_by(wildcards, Setting)
    others = BESIDE.get(setting, {}).values()
    runs = dict.fromkeys(
        [*BY_SETTING[setting], *(run for runs in others for run in runs)]
    )
    further = [
        f"{paths.MORE}{run.key}" for run in runs if wildcards.more and SETS[run][1]
    ]
    return [pattern.format(name) for name in [*(run.key for run in runs), *further]]


def beyond(wildcards):
    """--beyond STEPS: in more sampling steps than the fewest, whose comparisons are a table of their own."""
    runs = [SETS[run] for run in BY_SETTING[spelled_by(wildcards, Setting)]]
    least = min(k for plain, _ in runs for _, k in plain)
    return f"--beyond {least}" if wildcards.more else ""


def beside_of(wildcards):
    """--others METHOD:AXIS~VALUE …, where a claim is about two settings."""
    return (
        " ".join(["--others", *others])
        if (others := BESIDE.get(spelled_by(wildcards, Setting)))
        else ""
    )


def of_scope(scope, *kinds):
    """What a scope's tidy tables are collected from."""
    found = paths.measured(CONFIG, SCOPES[scope], scope)
    return [
        f"{OUT}/{path}" if path.endswith(".csv") else f"{OUT}/{path}/manifest.json"
        for kind in kinds
        for path in found[kind]
    ]


def named(names, found):
    """EXTRACTOR=FOLDER for paths features/<extractor>/…"""
    return [
        f"{name}={path}"
        for path in found
        for name in names
        if f"/features/{name}/" in path
    ]


# The first training seed of each method stands for it.
FIRST = {}
for _run in MAIN_RUNS:
    FIRST.setdefault(METHODS[_run.method], _run.key)


def rows_of(wildcards, input):
    """ROW=FOLDER of teacher and students."""
    return [f"Teacher={p}" for p in input.teacher] + [
        f"{row}={p}" for row, p in zip(FIRST, input.students)
    ]


# Figures over the grid: what differs from the main setting, read from the tidy tables. A rule has the tables it reads.
MAIN_SETTING = json.dumps(main_setting(CONFIG).axes())
PAPER_SCALE = [m for m in CONFIG.metric_names() if same_scale(m, CONFIG)]


def tables_of(wildcards, input):
    """--metrics FILE … for the tidy tables among a rule's inputs."""
    flags = {
        "metrics": "metrics",
        "comparisons": "comparisons",
        "students": "students-table",
        "errors": "errors",
    }
    return " ".join(
        f"--{flag} {input[name]}"
        for name, flag in flags.items()
        if name in input.keys()
    )


SWEEPS = {"N": "Figure 3, sweep over N", "w": "Figure 4, sweep over ω"}


def along(adapters):
    """Whether a run with snapshots has one of these adapters."""
    return any(CONFIG.snapshots(run) and run.adapter in adapters for run in ALL_RUNS)


def paired(axis):
    """The values of an axis that both of the paper's methods have, all else as in the main setting."""
    runs = select_runs(ALL_RUNS, main_setting(CONFIG), axis)
    both = [
        {getattr(run, axis) for run in runs if run.method == method} for method in PAIR
    ]
    return set.intersection(*both)


ANY = {run.adapter for run in ALL_RUNS}
OWN = {main_setting(CONFIG).adapter}
# Read from the whole grid; the others from the main comparison.
OF_THE_GRID = ("table2", "table3", "table4")
MAIN_TABLES = [name for name in available(CONFIG) if name not in OF_THE_GRID]
MAIN_FIGURES = {
    "supervision": "Figure 1. The two supervisions",
    "samples": "Figure 2. Samples from the same noise",
    "gallery": "Figure 5. Samples over all prompts",
    "results": "Table 1 as a figure",
    "curves": "Training curves",
    **(
        {"convergence": "Convergence of the theory"}
        if CONFIG.convergence is not None
        else {}
    ),
}
PAPER_TABLES = [name for name in available(CONFIG) if name in OF_THE_GRID]
# Of more methods than the paper's two the whole grid is the main thing.
DEFAULT_SCOPE = paths.default_scope(CONFIG)
if CONFIG.edited():
    MAIN_FIGURES["editing"] = "Editing without training"
PAPER_FIGURES = {
    name: title
    for name, title, there in (
        ("sweep_N", "Figure 3. Discretisation N", len(swept(CONFIG, "N")) > 1),
        ("sweep_w", "Figure 4. Guidance ω", len(swept(CONFIG, "w")) > 1),
        ("frontier", "The frontier along training", along(OWN)),
        ("compute", "Matched compute", along(OWN)),
        (
            "error",
            "Where the error is",
            any(CONFIG.measures_errors(run) for run in MAIN_RUNS),
        ),
        ("budget", "Budget and capacity", along(ANY)),
        (
            "sensitivity",
            "Loss and learning rate",
            any(len(paired(axis)) > 1 for axis in ("loss", "lr")),
        ),
        ("map", "Who is better where", along(ANY) or len(swept(CONFIG, "w")) > 1),
        (
            "training",
            "Along training, every method",
            DEFAULT_SCOPE == "paper" and along(OWN),
        ),
    )
    if there
}
FIGURES_OF = {"main": MAIN_FIGURES, "paper": MAIN_FIGURES | PAPER_FIGURES}


def others_of(scope):
    """What a scope makes beside its artefacts, pages on costs and provenance apart."""
    tables = MAIN_TABLES + (PAPER_TABLES if scope == "paper" else [])
    return [
        *(
            f"{TABLES}/{name}.{suffix}"
            for name in tables
            for suffix in ("csv", "tex", "html")
        ),
        *(
            f"{FIGURES}/{name}.{suffix}"
            for name in FIGURES_OF[scope]
            for suffix in ("pdf", "png", "csv")
        ),
        *(
            f"{OUT}/claims/{scope}.{suffix}"
            for suffix in ("csv", "tex", "html", "json")
        ),
        *(
            f"{OUT}/collected/{scope}/{name}.csv"
            for name in ("metrics", "students", "errors", "comparisons")
        ),
        f"{OUT}/cards/{scope}.csv",
        f"{OUT}/opening/{scope}.html",
        f"{OUT}/gallery/{scope}.html",
    ]


def results_of(scope):
    """Everything a scope makes that someone opens."""
    return [
        *others_of(scope),
        f"{OUT}/costs/{scope}.html",
        f"{OUT}/costs/{scope}.csv",
        f"{OUT}/provenance/{scope}.html",
    ]
