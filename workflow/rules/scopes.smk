"""What the analysis rules share: the scopes (`snakemake` makes "main", `snakemake paper` everything), and what each makes."""


def read_by_tables(students, *more):
    """What tables read of the configuration: nothing about how teacher and extractors were trained, nor `more`, and these `students`."""
    unread = ("encode", "extractors", "editing", "figures", "convergence", "fixed_points", *more)
    learnt = {name for name, kind in TEACHERS.items() if not kind.pinned}
    exclude = {**dict.fromkeys(unread, True), "teacher": learnt}
    block = CONFIG.model_dump(mode="json", exclude=exclude)
    return json.dumps(block | students, sort_keys=True)


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
    "main": read_by_tables({"students": [line_of(run) for run in MAIN_RUNS]}, "further_metrics"),
    "paper": read_by_tables({}),
    "teachers": read_by_tables({}),
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


def students_of(wildcards, folder):
    """A path per student of a setting, and of those that it is compared with; in more sampling steps, where that is asked, too."""
    setting = spelled_by(wildcards, Setting)
    others = BESIDE.get(setting, {}).values()
    runs = dict.fromkeys([*BY_SETTING[setting], *itertools.chain(*others)])
    further = [run for run in runs if wildcards.more and SETS[run][1]]
    names = [run.key for run in runs] + [f"{paths.MORE}{run.key}" for run in further]
    return made(*(f"{folder}/students/{name}" for name in names))


# What claims go over an axis for: of each kind the students' runs that it needs.
def runs_over(*contrasts):
    places = [(contrast, plan(contrast, CONFIG)) for contrast in contrasts]
    return list(dict.fromkeys(itertools.chain(*(place.runs(contrast) for contrast, place in places))))


TIMED = runs_over(*(one for one in CONTRASTS if one.axis == TIME))
SAMPLED_OVER = runs_over(*(one for one in CONTRASTS if one.axis != TIME))
# Whose features Fréchet distances are computed on, and against what.
OVER_FEATURES = {
    METRICS[one.metric].extractor: None
    for one in CONTRASTS
    if METRICS[one.metric].extractor and not METRICS[one.metric].per_sample
}


# And the teacher's samples that they are against: of another noise, where a contrast is of them.
OVER_TEACHERS = ["teacher", *(["floor"] if any(one.reference == "other_noise" for one in CONTRASTS) else [])]


def over(folder):
    """A path per student that a contrast needs; in more sampling steps too, where it has them."""
    names = [name for run in SAMPLED_OVER for name in (run.key, *([f"{paths.MORE}{run.key}"] if SETS[run][1] else []))]
    return made(*(f"{folder}/students/{name}" for name in names))


def beyond(wildcards):
    """--beyond STEPS: in more sampling steps than the fewest, whose comparisons are a table of their own."""
    runs = [SETS[run] for run in BY_SETTING[spelled_by(wildcards, Setting)]]
    least = min(k for plain, _ in runs for _, k in plain)
    return f"--beyond {least}" if wildcards.more else ""


def beside_of(wildcards):
    """--others METHOD:AXIS~VALUE …, where a claim is about two settings."""
    others = BESIDE.get(spelled_by(wildcards, Setting), ())
    return " ".join(["--others", *others]) if others else ""


def of_scope(scope, *kinds):
    """What a scope's tidy tables are collected from."""
    found = paths.measured(CONFIG, TABLES_OF[scope], scope)
    return [
        f"{OUT}/{path}" if path.endswith(".csv") else f"{OUT}/{path}/manifest.json"
        for kind in kinds
        for path in found[kind]
    ]


def named(found):
    """EXTRACTOR=FOLDER for paths <results>/features/<extractor>/…"""
    return [f"{path.removeprefix(OUT).split('/')[2]}={path}" for path in found]


@known
def named_other(wildcards, input):
    """--other-noise EXTRACTOR=FOLDER …, where there are any."""
    return " ".join(["--other-noise", *named(input.other_noise)]) if input.other_noise else ""


def further_of(wildcards):
    """The keys of a setting's runs that have further metrics."""
    return [run.key for run in paths.further(CONFIG, BY_SETTING[spelled_by(wildcards, Setting)], "paper")]


# The first training seed of each method stands for it.
FIRST = {}
for _run in MAIN_RUNS:
    FIRST.setdefault(METHODS[_run.method], _run.key)


def rows_of(students):
    """ROW=FOLDER of teacher and students; `students`: their rows."""
    return lambda wildcards, input: [
        *(f"Teacher={path}" for path in input.teacher),
        *(f"{row}={path}" for row, path in zip(students, input.students)),
    ]


SAMPLED = rows_of(FIRST)
EDITED = rows_of([METHODS[run.method] for run in CONFIG.edited()])


# Figures and tables declare themselves (directcm.config.exhibits). What they take, by the flag: a rule's inputs …
INPUTS = {
    **{name: {name: made(name)} for name in ("trajectories", "convergence", "fixed_points", "noise")},
    "samples": {
        "teacher": draw_of(CONFIG.ode.key),
        "students": made(*(f"samples/{run}" for run in FIRST.values())),
    },
    "edits": {
        "teacher": made(f"edits/teacher/{MAIN_RUNS[0].ode.key}"),
        "students": made(*(f"edits/students/{run.key}" for run in CONFIG.edited())),
    },
    "students": {"students": made(*(f"students/{run.key}" for run in MAIN_RUNS))},
    "searches": {"searches": made(*(f"search/{run}" for run in paths.searched(CONFIG, MAIN_RUNS)))},
    "table": {"table": f"{TABLES}/table1.csv"},
    "teachers": {"teachers": f"{OUT}/collected/teachers/comparisons.csv"},
}


def of_experiments(exhibit, ending):
    """What `why` writes of the experiments that an exhibit is of."""
    return [f"{OUT}/why/{letter.lower()}{ending}.csv" for letter in exhibit.experiments.split()]


# … of which these are tidy tables, by the file …
TIDY = {name: name for name in ("metrics", "comparisons", "errors", "directions", "correlations")}
TIDY["students_table"] = "students"
# … and values of the configuration, which every figure gets that takes the main setting.
OF_THE_SETTING = {
    "alpha": CONFIG.statistics.alpha,
    "space": SPACE,
    "paper_scale": [m for m in CONFIG.metric_names() if same_scale(m, CONFIG)],
}


def base_of(wildcards):
    """The main setting, or the one that a sweep over an axis varies."""
    axis = wildcards.get("axis")
    return base_setting(CONFIG, axis) if axis else main_setting(CONFIG)


def fixed_of(wildcards):
    """For a sweep's caption: what stays the same."""
    others = {"N": "w", "w": "N"}[wildcards.axis]
    return f"{others} = {getattr(base_of(wildcards), others):g}"


def inputs_of(exhibit):
    found = {}
    for flag in exhibit.takes.split():
        if flag in TIDY:
            found[flag] = f"{OUT}/collected/{exhibit.scope}/{TIDY[flag]}.csv"
        found |= INPUTS.get(flag, {})
        if flag in ("arms", "tests"):
            found[flag] = of_experiments(exhibit, "_arms" if flag == "arms" else "")
    return found


def params_of(exhibit):
    """What its command is filled from besides inputs; `axis` is a wildcard, and `fixed` for the caption."""
    takes = exhibit.takes.split()
    if exhibit.kind == "table":
        return {"settings": literal(READ[exhibit.scope])}
    found = dict(OF_THE_SETTING) if "setting" in takes else {}
    values = {
        "samples": SAMPLED,
        "edits": EDITED,
        "setting": lambda wildcards: json.dumps(base_of(wildcards).axes()),
    }
    found |= {flag: values[flag] for flag in takes if flag in values}
    if "columns" in takes:
        found["columns"] = getattr(CONFIG.figures, exhibit.name)
    return found | ({"fixed": fixed_of} if "axis" in takes else {})


def command_of(exhibit):
    """Its line `directcm figure …` or `directcm table …`."""
    takes = exhibit.takes.split()
    more = [*OF_THE_SETTING] if "setting" in takes else []
    return verb(
        exhibit.kind,
        " ".join([*takes, *more]),
        wildcards="axis" if "axis" in takes else "",
        name=exhibit.word,
        out="{output.%s}" % next(iter(exhibit.files)),
    )


COMMANDS = {one.rule: command_of(one) for one in exhibits()}


def outputs_of(exhibit):
    """Its files, of which the report shows a figure's picture, and a table as CSV and as a page."""
    found = {key: f"{OUT}/{path}" for key, path in exhibit.files.items()}
    name = "exhibit" if exhibit.rule in config["captions"] else exhibit.stem

    def labels(form):
        if isinstance(exhibit.title, str):
            return {exhibit.kind: exhibit.title, **form}
        return lambda wildcards: {exhibit.kind: exhibit.title[wildcards.axis], **form}

    pages = {"csv": {"form": "CSV"}, "html": {"form": "table"}}
    for key, form in ({"png": {}} if exhibit.kind == "figure" else pages).items():
        found[key] = report(
            found[key],
            caption=f"../report/{name}.rst",
            category=exhibit.category,
            labels=labels(form),
        )
    return found


# Of those without a caption of their own, by rule: what the module says of itself, for exhibit.rst.
config["captions"] = {
    one.rule: one.text
    for one in exhibits()
    if not Path(workflow.basedir, "workflow/report", f"{one.stem}.rst").is_file()
}
# What there is to show, and a scope's share of it.
AVAILABLE = available(CONFIG)
# Of more methods than the paper's two the whole grid is the main thing.
DEFAULT_SCOPE = paths.default_scope(CONFIG)


def shown_in(scope):
    return [one for one in AVAILABLE if scope in (one.scope, "paper")]


def pictures_of(scope):
    """What a scope's gallery shows."""
    return [
        {
            "path": f"{OUT}/{one.files['png']}",
            "title": one.short,
            "section": one.section,
        }
        for one in shown_in(scope)
        if one.kind == "figure"
    ]


def over_teachers(wildcards):
    """The table over teachers, where a scope has several: claims about them are judged by it."""
    there = wildcards.scope == "paper" and TABLES_OF["teachers"]
    return INPUTS["teachers"]["teachers"] if there else []


def artefacts_of(wildcards):
    """The manifests of all artefacts of a scope."""
    scope = wildcards.scope
    return made(*paths.artefacts(CONFIG, SCOPES[scope], scope))


def others_of(scope):
    """What a scope makes beside its artefacts, pages on costs and provenance apart."""
    return [
        *(f"{OUT}/{path}" for one in shown_in(scope) for path in one.files.values()),
        *made_by(scope, paths.OF_A_SCOPE),
    ]


def made_by(scope, names):
    """The outputs of rules that run once for each scope."""
    return [str(path).format(scope=scope) for name in names for path in getattr(rules, name).output]


def results_of(scope):
    """Everything a scope makes that someone opens."""
    return [*others_of(scope), *made_by(scope, ("costs", "provenance"))]
