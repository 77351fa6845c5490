"""The experiments on why (workflow/why.yaml): each by itself, their outcomes together, and `why`, `why_a` … `why_f` that make them."""

WHY_YAML = "workflow/why.yaml"
# What is read of the configuration: as by tables, and which fixed points there are.
READ_BY_WHY = json.dumps(
    {**json.loads(READ["paper"]), **CONFIG.model_dump(mode="json", include={"fixed_points"})},
    sort_keys=True,
)


def experiment_of(letter):
    """The experiment of a letter that this grid has; a line where it has none."""
    if letter.upper() not in EXPERIMENTS:
        absent = {name: said for name, said in WITHOUT.items() if name[0] == letter.upper()}
        stop("; ".join(f"{WHY_YAML}: {name}: {said}" for name, said in absent.items()))
    return WHY[EXPERIMENTS[letter.upper()]]


# What the experiments of a target are: all that this grid has, or one.
def letters_of(which):
    return [which[1:]] if which else [letter.lower() for letter in EXPERIMENTS]


@known
def read_by_why(wildcards):
    found = needed(experiment_of(wildcards.letter), CONFIG)
    return made(*(folder for kind in found.values() for folder in kind))


@known
def said_of(wildcards):
    """What is judged: an experiment as it was declared, but for its words."""
    found = experiment_of(wildcards.letter).model_dump(mode="json")
    return json.dumps(
        {key: found[key] for key in ("arms", "tests", "supported_if", "refuted_if", "unit", "seed")}, sort_keys=True
    )


rule why_experiment:
    input:
        read_by_why,
    output:
        tests=report(
            f"{OUT}/why/{{letter}}.csv",
            caption="../report/why.rst",
            category="1 Why",
            labels=lambda wildcards: {"why": f"{wildcards.letter.upper()}, every test", "form": "CSV"},
        ),
        arms=f"{OUT}/why/{{letter}}_arms.csv",
    log:
        f"{OUT}/logs/why/{{letter}}.log",
    benchmark:
        f"{OUT}/benchmarks/why/{{letter}}.tsv"
    wildcard_constraints:
        letter="[a-f]",
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(2000, 32000),
        runtime=later(20, 240),
    params:
        code=code("analysis.data.why"),
        said=said_of,
        settings=literal(READ_BY_WHY),
        results=OUT,
        letter=lambda wildcards: wildcards.letter.upper(),
    message:
        "why: experiment {params.letter}"
    shell:
        verb("why", experiments=WHY_YAML, out="{output.tests}")


rule outcomes:
    input:
        experiments=WHY_YAML,
        tests=lambda wildcards: [f"{OUT}/why/{letter}.csv" for letter in letters_of(wildcards.which)],
        arms=lambda wildcards: [f"{OUT}/why/{letter}_arms.csv" for letter in letters_of(wildcards.which)],
    output:
        csv=report(
            f"{OUT}/why/outcomes{{which}}.csv",
            caption="../report/why.rst",
            category="1 Why",
            labels={"why": "Outcomes", "form": "CSV"},
        ),
        html=report(
            f"{OUT}/why/outcomes{{which}}.html",
            caption="../report/why.rst",
            category="1 Why",
            labels={"why": "Outcomes", "form": "table"},
        ),
        tex=f"{OUT}/why/outcomes{{which}}.tex",
        json=f"{OUT}/why/outcomes{{which}}.json",
        arms=f"{OUT}/why/arms{{which}}.csv",
        opening=f"{OUT}/opening/why{{which}}.html",
    log:
        f"{OUT}/logs/outcomes/why{{which}}.log",
    benchmark:
        f"{OUT}/benchmarks/outcomes/why{{which}}.tsv"
    wildcard_constraints:
        which="|_[a-f]",
    localrule: True
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.tables.outcomes"),
        settings=literal(READ_BY_WHY),
    message:
        "outcomes: the experiments on why"
    shell:
        verb("outcomes", out="{output.csv}")


def illustrated(exhibit):
    """The experiments that a figure or table is of; that of fixed points is B's, whichever scope shows it too."""
    return {*exhibit.experiments.lower().split()} or ({"b"} if exhibit.takes == "fixed_points" else set())


def results_of_why(which=""):
    """What `why` makes, or one experiment's share of it."""
    letters = letters_of(which)
    files = [path for path in rules.outcomes.output]
    pictures = [
        f"{OUT}/{path}"
        for one in exhibits()
        if (own := illustrated(one)) and own <= {*letters}
        for path in one.files.values()
    ]
    return [str(path).format(which=which) for path in files] + pictures


def asked_for(which=""):
    """The same, when it is asked for: a line where this grid has none of it."""

    def found(wildcards):
        for letter in [which[1:]] if which else []:
            experiment_of(letter)
        if not EXPERIMENTS:
            stop(
                f"{WHY_YAML}: this grid has no experiment of it: "
                + "; ".join(f"{name}: {said}" for name, said in WITHOUT.items())
            )
        return results_of_why(which)

    return found


rule why:
    input:
        asked_for(),
    message:
        f"why: outcomes, numbers and figures are in {OUT}/why and {OUT}/figures"


for _letter in "abcdef":

    rule:
        name:
            f"why_{_letter}"
        input:
            asked_for(f"_{_letter}"),
        message:
            f"why: outcomes, numbers and figures are in {OUT}/why and {OUT}/figures"
