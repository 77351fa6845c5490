"""From numbers to tables, figures and pages. All but `compare` take seconds: on a cluster they run where the command does."""


rule compare:
    input:
        metrics=lambda wildcards: students_of(wildcards, "metrics"),
        features=lambda wildcards: [path for name in NEEDED for path in students_of(wildcards, f"features/{name}")],
        teacher=features_of(f"teacher/{TAUGHT}"),
        data=features_of("data"),
        other_noise=features_of(f"floor/{TAUGHT}", paths.from_other_noise(CONFIG.metric_names())),
        # Of the default teacher's ODEs alone.
        baselines=branch(
            lambda wildcards: CONFIG.baseline_metrics() and not wildcards.redrawn,
            then=made(f"metrics/baselines/{ODE}"),
            otherwise=[],
        ),
    output:
        f"{OUT}/comparisons/{{more}}{SETTING}.csv",
    log:
        f"{OUT}/logs/compare/{{more}}{SETTING}.log",
    benchmark:
        f"{OUT}/benchmarks/compare/{{more}}{SETTING}.tsv"
    wildcard_constraints:
        more=f"|{paths.MORE}",
    conda:
        "../../envs/directcm.yaml"
    # One setting has all the methods where there are more than the paper's two.
    threads: min(2, len(COMPARED.pairs))
    resources:
        mem_mb=later(2000, 16000),
        runtime=later(20, 240),
    params:
        code=code("analysis.data.compare"),
        settings=literal(settings(CONFIG.statistics)),
        setting=lambda wildcards: axes_of(wildcards, Setting),
        features=lambda wildcards, input: named(input.features),
        teacher=lambda wildcards, input: named(input.teacher),
        data=lambda wildcards, input: named(input.data),
        other_noise=named_other,
        pairs=COMPARED.pairs,
        along=COMPARED.along,
        stepwise=COMPARED.stepwise,
        claimed=COMPARED.claimed,
        others=beside_of,
        beyond=beyond,
        baselines=if_any("baselines"),
        seed=SEED,
    message:
        "compare: {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}, {wildcards.adapter}, {wildcards.loss}, lr {wildcards.lr}, {wildcards.steps} steps"
    shell:
        verb(
            "compare",
            "pairs stepwise along claimed beyond? others? features teacher data other_noise? baselines?",
        )


use rule compare as compare_further with:
    input:
        metrics=lambda wildcards: made(*(f"metrics/{paths.FURTHER}students/{key}" for key in further_of(wildcards))),
        features=lambda wildcards: made(
            *(f"features/{name}/students/{key}" for name in FURTHER_NEEDED for key in further_of(wildcards))
        ),
        teacher=features_of(f"teacher/{TAUGHT}", FURTHER_NEEDED),
        data=features_of("data", FURTHER_NEEDED),
        other_noise=features_of(f"floor/{TAUGHT}", paths.from_other_noise(FURTHER)),
    output:
        f"{OUT}/comparisons/{paths.FURTHER}{SETTING}.csv",
    log:
        f"{OUT}/logs/compare/{paths.FURTHER}{SETTING}.log",
    benchmark:
        f"{OUT}/benchmarks/compare/{paths.FURTHER}{SETTING}.tsv"
    params:
        code=code("analysis.data.compare"),
        settings=literal(settings(CONFIG.statistics)),
        setting=lambda wildcards: axes_of(wildcards, Setting),
        features=lambda wildcards, input: named(input.features),
        teacher=lambda wildcards, input: named(input.teacher),
        data=lambda wildcards, input: named(input.data),
        other_noise=named_other,
        pairs=COMPARED.pairs,
        along=COMPARED.along,
        stepwise=COMPARED.stepwise,
        claimed=COMPARED.claimed,
        others="",
        beyond="",
        baselines="",
        seed=SEED,
    message:
        "compare: further metrics of the main comparison"


rule contrasts:
    input:
        metrics=over("metrics"),
        features=[
            path
            for name in OVER_FEATURES
            for path in [
                *over(f"features/{name}"),
                *made(
                    *(
                        f"features/{name}/{who}/{ode}"
                        for who in OVER_TEACHERS
                        for ode in paths.odes(CONFIG, SAMPLED_OVER)
                    )
                ),
                *made(f"features/{name}/data"),
            ]
        ],
        errors=made(*(f"errors/{run.key}" for run in TIMED)),
    output:
        f"{OUT}/contrasts/paper.csv",
    log:
        f"{OUT}/logs/contrasts/paper.log",
    benchmark:
        f"{OUT}/benchmarks/contrasts/paper.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(2000, 16000),
        runtime=later(20, 240),
    params:
        code=code("analysis.data.contrasts"),
        settings=literal(READ["paper"]),
        contrasts=[one.key for one in CONTRASTS],
        features=lambda wildcards, input: named(input.features),
        space=SPACE,
        seed=SEED,
    message:
        "contrasts: trends and means over an axis"
    shell:
        verb("contrasts", "contrasts space metrics features errors")


rule collect:
    input:
        metrics=lambda wildcards: of_scope(wildcards.scope, "metrics"),
        students=lambda wildcards: of_scope(wildcards.scope, "students"),
        targets=lambda wildcards: of_scope(wildcards.scope, "targets"),
        errors=lambda wildcards: of_scope(wildcards.scope, "errors"),
        comparisons=lambda wildcards: of_scope(wildcards.scope, "comparisons"),
    output:
        metrics=f"{OUT}/collected/{{scope}}/metrics.csv",
        students=f"{OUT}/collected/{{scope}}/students.csv",
        errors=f"{OUT}/collected/{{scope}}/errors.csv",
        comparisons=f"{OUT}/collected/{{scope}}/comparisons.csv",
        directions=f"{OUT}/collected/{{scope}}/directions.csv",
        correlations=f"{OUT}/collected/{{scope}}/correlations.csv",
    log:
        f"{OUT}/logs/collect/{{scope}}.log",
    benchmark:
        f"{OUT}/benchmarks/collect/{{scope}}.tsv"
    wildcard_constraints:
        scope="|".join(TABLES_OF),
    localrule: True
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.data.collect", "config.paths"),
        settings=lambda wildcards: READ[wildcards.scope],
        results=subpath(output[0], ancestor=3),
        out=subpath(output[0], parent=True),
    message:
        "collect: the tidy tables, scope {wildcards.scope}"
    shell:
        verb("collect", wildcards="scope", out="{params.out}")


rule cards:
    input:
        data=f"{OUT}/data/manifest.json",
        teacher=f"{OUT}/teacher/manifest.json",
        students=lambda wildcards: of_scope(wildcards.scope, "students"),
        metrics=lambda wildcards: made(*(f"metrics/students/{run.key}" for run in TABLES_OF[wildcards.scope])),
    output:
        f"{OUT}/cards/{{scope}}.csv",
    log:
        f"{OUT}/logs/cards/{{scope}}.log",
    benchmark:
        f"{OUT}/benchmarks/cards/{{scope}}.tsv"
    localrule: True
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.pages.cards"),
        settings=lambda wildcards: READ[wildcards.scope],
        results=subpath(output[0], ancestor=2),
    message:
        "cards: the students' model cards, scope {wildcards.scope}"
    shell:
        verb("cards", wildcards="scope")


for _exhibit in exhibits():

    rule:
        name:
            _exhibit.rule
        input:
            **inputs_of(_exhibit),
        output:
            **outputs_of(_exhibit),
        log:
            f"{OUT}/logs/{_exhibit.job}.log",
        benchmark:
            f"{OUT}/benchmarks/{_exhibit.job}.tsv"
        localrule: True
        conda:
            "../../envs/directcm.yaml"
        threads: 1
        params:
            **params_of(_exhibit),
            code=code(_exhibit.module),
        message:
            f"{_exhibit.kind}: {_exhibit.stem}"
        shell:
            # Read now, and by each job, which comes after the loop's end and knows its rule.
            COMMANDS[locals().get("rule", _exhibit.rule)]


rule claims:
    input:
        claims="workflow/claims.yaml",
        comparisons=f"{OUT}/collected/{{scope}}/comparisons.csv",
        teachers=over_teachers,
    output:
        csv=report(
            f"{OUT}/claims/{{scope}}.csv",
            caption="../report/claims.rst",
            category="1 Claims",
            labels={"claims": "Every claim's numbers", "form": "CSV"},
        ),
        html=report(
            f"{OUT}/claims/{{scope}}.html",
            caption="../report/claims.rst",
            category="1 Claims",
            labels={"claims": "What is shown here", "form": "table"},
        ),
        tex=f"{OUT}/claims/{{scope}}.tex",
        json=f"{OUT}/claims/{{scope}}.json",
    log:
        f"{OUT}/logs/claims/{{scope}}.log",
    benchmark:
        f"{OUT}/benchmarks/claims/{{scope}}.tsv"
    localrule: True
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.tables.claims"),
        settings=literal(READ["paper"]),
        teachers=if_any("teachers"),
    message:
        "claims: verdicts, scope {wildcards.scope}"
    shell:
        verb("claims", "teachers?", out="{output.csv}")


rule opening:
    input:
        **INPUTS["samples"],
        claims="workflow/claims.yaml",
        comparisons=f"{OUT}/collected/{{scope}}/comparisons.csv",
        teachers=over_teachers,
        # Table 1 is the main comparison's in every scope.
        metrics=f"{OUT}/collected/main/metrics.csv",
        compared=f"{OUT}/collected/main/comparisons.csv",
        drawn=f"{FIGURES}/samples.csv",
    output:
        f"{OUT}/opening/{{scope}}.html",
    log:
        f"{OUT}/logs/opening/{{scope}}.log",
    benchmark:
        f"{OUT}/benchmarks/opening/{{scope}}.tsv"
    localrule: True
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.pages.opening"),
        settings=literal(READ["paper"]),
        samples=SAMPLED,
        teachers=if_any("teachers"),
    message:
        "opening: the report's first page, scope {wildcards.scope}"
    shell:
        verb("opening", "teachers?")


rule gallery:
    input:
        pictures=lambda wildcards: [picture["path"] for picture in pictures_of(wildcards.scope)],
    output:
        report(
            f"{OUT}/gallery/{{scope}}.html",
            caption="../report/gallery_page.rst",
            category="4 Galleries",
            labels={"page": "All pictures, a click enlarges"},
        ),
    log:
        f"{OUT}/logs/gallery/{{scope}}.log",
    benchmark:
        f"{OUT}/benchmarks/gallery/{{scope}}.tsv"
    localrule: True
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.pages.gallery"),
        pictures=lambda wildcards: json.dumps(pictures_of(wildcards.scope)),
        title=f"Gallery, preset {CONFIG.preset}",
    message:
        "gallery: all pictures, scope {wildcards.scope}"
    shell:
        verb("gallery", "title")


rule costs:
    input:
        artifacts=artefacts_of,
        # Waited for, so that no step is counted half, but no reason to run again.
        others=ancient(lambda wildcards: others_of(wildcards.scope)),
    output:
        html=report(
            f"{OUT}/costs/{{scope}}.html",
            caption="../report/costs.rst",
            category="5 Costs",
            labels={"page": "What each step cost"},
        ),
        csv=report(
            f"{OUT}/costs/{{scope}}.csv",
            caption="../report/costs.rst",
            category="5 Costs",
            labels={"page": "Costs by step, CSV"},
        ),
    log:
        f"{OUT}/logs/costs/{{scope}}.log",
    benchmark:
        f"{OUT}/benchmarks/costs/{{scope}}.tsv"
    localrule: True
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.pages.provenance", "config.paths"),
        settings=literal(settings(CONFIG)),
        results=subpath(output[0], ancestor=2),
    message:
        "costs: what each step cost, scope {wildcards.scope}"
    shell:
        verb("costs", wildcards="scope", out="{output.html}")


rule provenance:
    input:
        artifacts=artefacts_of,
        # Waited for, so that no step is counted half, but no reason to run again.
        others=ancient(lambda wildcards: others_of(wildcards.scope)),
    output:
        html=report(
            f"{OUT}/provenance/{{scope}}.html",
            caption="../report/provenance.rst",
            category="6 Provenance",
            labels={"page": "What ran, from what"},
        ),
    log:
        f"{OUT}/logs/provenance/{{scope}}.log",
    benchmark:
        f"{OUT}/benchmarks/provenance/{{scope}}.tsv"
    localrule: True
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.pages.provenance", "config.paths"),
        settings=literal(settings(CONFIG)),
        results=subpath(output[0], ancestor=2),
    message:
        "provenance: what ran, and from what, scope {wildcards.scope}"
    shell:
        verb("provenance", wildcards="scope", out="{output.html}")
