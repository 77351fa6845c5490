"""The experiments on why (workflow/why.yaml): each by itself, their outcomes together, and `why`, `why_a` … `why_f` that make them."""


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
        results=subpath(output[0], ancestor=2),
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
