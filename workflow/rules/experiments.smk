"""What the rules of the experiments on why share: which experiments there are, what each reads, and what its target makes."""

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
