rule compare:
    input:
        metrics=lambda wildcards: students_of(
            wildcards, f"{OUT}/metrics/students/{{}}/manifest.json"
        ),
        features=lambda wildcards: [
            path
            for name in NEEDED
            for path in students_of(
                wildcards, f"{OUT}/features/{name}/students/{{}}/manifest.json"
            )
        ],
        teacher=features_of(f"teacher/{ODE}"),
        data=features_of("data"),
        code=code("analysis.compare"),
    output:
        f"{OUT}/comparisons/{SETTING}.csv",
    log:
        f"{OUT}/logs/compare/{SETTING}.log",
    benchmark:
        f"{OUT}/benchmarks/compare/{SETTING}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(2000, 16000),
        runtime=later(20, 240),
    params:
        settings=settings(CONFIG.statistics),
        setting=lambda wildcards: axes_of(wildcards, SETTING_AXES),
        features=lambda wildcards, input: named(NEEDED, input.features),
        teacher=lambda wildcards, input: named(NEEDED, input.teacher),
        data=lambda wildcards, input: named(NEEDED, input.data),
        seed=SEED,
    message:
        "compare: {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}, {wildcards.adapter}, {wildcards.loss}, lr {wildcards.lr}, {wildcards.steps} steps"
    shell:
        "directcm compare --settings {params.settings:q} --setting {params.setting:q} --metrics {input.metrics}"
        " --features {params.features} --teacher {params.teacher} --data {params.data}"
        " --seed {params.seed} --out {output} --log {log}"


rule collect:
    input:
        metrics=lambda wildcards: of_scope(wildcards.scope, "metrics"),
        students=lambda wildcards: of_scope(wildcards.scope, "students"),
        targets=lambda wildcards: of_scope(wildcards.scope, "targets"),
        errors=lambda wildcards: of_scope(wildcards.scope, "errors"),
        comparisons=lambda wildcards: of_scope(wildcards.scope, "comparisons"),
        code=code("analysis.collect", "paths"),
    output:
        metrics=f"{OUT}/collected/{{scope}}/metrics.csv",
        students=f"{OUT}/collected/{{scope}}/students.csv",
        errors=f"{OUT}/collected/{{scope}}/errors.csv",
        comparisons=f"{OUT}/collected/{{scope}}/comparisons.csv",
    log:
        f"{OUT}/logs/collect/{{scope}}.log",
    benchmark:
        f"{OUT}/benchmarks/collect/{{scope}}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=lambda wildcards: READ[wildcards.scope],
        results=subpath(output[0], ancestor=3),
        out=subpath(output[0], parent=True),
    message:
        "collect: the tidy tables, scope {wildcards.scope}"
    shell:
        "directcm collect --settings {params.settings:q} --results {params.results} --scope {wildcards.scope}"
        " --out {params.out} --log {log}"


rule table1:
    input:
        metrics=f"{OUT}/collected/main/metrics.csv",
        comparisons=f"{OUT}/collected/main/comparisons.csv",
        code=code("analysis.table"),
    output:
        csv=report(
            f"{TABLES}/table1.csv",
            caption="../report/table1.rst",
            category="2 Tables",
            labels={"table": "Table 1, main comparison", "form": "CSV"},
        ),
        html=report(
            f"{TABLES}/table1.html",
            caption="../report/table1.rst",
            category="2 Tables",
            labels={"table": "Table 1, main comparison", "form": "table"},
        ),
        tex=f"{TABLES}/table1.tex",
        json=f"{TABLES}/table1.json",
    log:
        f"{OUT}/logs/table1.log",
    benchmark:
        f"{OUT}/benchmarks/table1.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        name="table1",
        settings=READ["main"],
    message:
        "table: {params.name}"
    shell:
        "directcm table {params.name} --settings {params.settings:q} --metrics {input.metrics}"
        " --comparisons {input.comparisons} --out {output.csv} --log {log}"


use rule table1 as table2 with:
    input:
        metrics=f"{OUT}/collected/paper/metrics.csv",
        comparisons=f"{OUT}/collected/paper/comparisons.csv",
        code=code("analysis.table"),
    output:
        csv=report(
            f"{TABLES}/table2.csv",
            caption="../report/table2.rst",
            category="2 Tables",
            labels={"table": "Table 2, the solver", "form": "CSV"},
        ),
        html=report(
            f"{TABLES}/table2.html",
            caption="../report/table2.rst",
            category="2 Tables",
            labels={"table": "Table 2, the solver", "form": "table"},
        ),
        tex=f"{TABLES}/table2.tex",
    log:
        f"{OUT}/logs/table2.log",
    benchmark:
        f"{OUT}/benchmarks/table2.tsv"
    params:
        name="table2",
        settings=READ["paper"],


use rule table1 as table3 with:
    input:
        metrics=f"{OUT}/collected/main/metrics.csv",
        comparisons=f"{OUT}/collected/main/comparisons.csv",
        code=code("analysis.table"),
    output:
        csv=report(
            f"{TABLES}/table3.csv",
            caption="../report/table3.rst",
            category="2 Tables",
            labels={"table": "Table 3, student sampling steps", "form": "CSV"},
        ),
        html=report(
            f"{TABLES}/table3.html",
            caption="../report/table3.rst",
            category="2 Tables",
            labels={"table": "Table 3, student sampling steps", "form": "table"},
        ),
        tex=f"{TABLES}/table3.tex",
    log:
        f"{OUT}/logs/table3.log",
    benchmark:
        f"{OUT}/benchmarks/table3.tsv"
    params:
        name="table3",
        settings=READ["main"],


use rule table1 as table_metrics with:
    input:
        metrics=f"{OUT}/collected/main/metrics.csv",
        comparisons=f"{OUT}/collected/main/comparisons.csv",
        code=code("analysis.table"),
    output:
        csv=report(
            f"{TABLES}/table_metrics.csv",
            caption="../report/table_metrics.rst",
            category="2 Tables",
            labels={"table": "All other metrics", "form": "CSV"},
        ),
        html=report(
            f"{TABLES}/table_metrics.html",
            caption="../report/table_metrics.rst",
            category="2 Tables",
            labels={"table": "All other metrics", "form": "table"},
        ),
        tex=f"{TABLES}/table_metrics.tex",
    log:
        f"{OUT}/logs/table_metrics.log",
    benchmark:
        f"{OUT}/benchmarks/table_metrics.tsv"
    params:
        name="table_metrics",
        settings=READ["main"],


use rule table1 as table_comparison with:
    input:
        metrics=f"{OUT}/collected/main/metrics.csv",
        comparisons=f"{OUT}/collected/main/comparisons.csv",
        code=code("analysis.table"),
    output:
        csv=report(
            f"{TABLES}/table_comparison.csv",
            caption="../report/table_comparison.rst",
            category="2 Tables",
            labels={"table": "CM minus Direct CM, tested", "form": "CSV"},
        ),
        html=report(
            f"{TABLES}/table_comparison.html",
            caption="../report/table_comparison.rst",
            category="2 Tables",
            labels={"table": "CM minus Direct CM, tested", "form": "table"},
        ),
        tex=f"{TABLES}/table_comparison.tex",
    log:
        f"{OUT}/logs/table_comparison.log",
    benchmark:
        f"{OUT}/benchmarks/table_comparison.tsv"
    params:
        name="table_comparison",
        settings=READ["main"],


rule claims:
    input:
        claims="workflow/claims.yaml",
        comparisons=f"{OUT}/collected/{{scope}}/comparisons.csv",
        code=code("analysis.claims"),
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
            labels={"claims": "What holds here", "form": "table"},
        ),
        tex=f"{OUT}/claims/{{scope}}.tex",
        json=f"{OUT}/claims/{{scope}}.json",
        rst=f"{OUT}/claims/{{scope}}.rst",
    log:
        f"{OUT}/logs/claims/{{scope}}.log",
    benchmark:
        f"{OUT}/benchmarks/claims/{{scope}}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=READ["paper"],
    message:
        "claims: verdicts, scope {wildcards.scope}"
    shell:
        "directcm claims --claims {input.claims} --settings {params.settings:q}"
        " --comparisons {input.comparisons} --out {output.csv} --log {log}"


rule figure_supervision:
    input:
        trajectories=f"{OUT}/trajectories/manifest.json",
        code=code("analysis.figure_supervision"),
    output:
        pdf=f"{FIGURES}/supervision.pdf",
        png=report(
            f"{FIGURES}/supervision.png",
            caption="../report/supervision.rst",
            category="3 Figures",
            labels={"figure": "Figure 1, the two supervisions"},
        ),
        csv=f"{FIGURES}/supervision.csv",
    log:
        f"{OUT}/logs/figure_supervision.log",
    benchmark:
        f"{OUT}/benchmarks/figure_supervision.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "figure: the two supervisions"
    shell:
        "directcm figure supervision --trajectories {input.trajectories} --out {output.pdf} --log {log}"


rule figure_samples:
    input:
        noise=f"{OUT}/noise/manifest.json",
        teacher=draw_of(key(DEFAULT_ODE, ODE_AXES)),
        students=[f"{OUT}/samples/{run}/manifest.json" for run in FIRST.values()],
        code=code("analysis.figure_samples"),
    output:
        pdf=f"{FIGURES}/samples.pdf",
        png=report(
            f"{FIGURES}/samples.png",
            caption="../report/samples.rst",
            category="3 Figures",
            labels={"figure": "Figure 2, samples from the same noise"},
        ),
        csv=f"{FIGURES}/samples.csv",
    log:
        f"{OUT}/logs/figure_samples.log",
    benchmark:
        f"{OUT}/benchmarks/figure_samples.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        columns=CONFIG.figures.samples,
        samples=rows_of,
    message:
        "figure: samples from the same noise"
    shell:
        "directcm figure samples --noise {input.noise} --samples {params.samples:q} --columns {params.columns}"
        " --out {output.pdf} --log {log}"


use rule figure_samples as figure_gallery with:
    input:
        noise=f"{OUT}/noise/manifest.json",
        teacher=draw_of(key(DEFAULT_ODE, ODE_AXES)),
        students=[f"{OUT}/samples/{run}/manifest.json" for run in FIRST.values()],
        code=code("analysis.figure_samples"),
    output:
        pdf=f"{FIGURES}/gallery.pdf",
        png=report(
            f"{FIGURES}/gallery.png",
            caption="../report/gallery.rst",
            category="3 Figures",
            labels={"figure": "Figure 5, samples over all prompts"},
        ),
        csv=f"{FIGURES}/gallery.csv",
    log:
        f"{OUT}/logs/figure_gallery.log",
    benchmark:
        f"{OUT}/benchmarks/figure_gallery.tsv"
    params:
        columns=CONFIG.figures.gallery,
        samples=rows_of,


rule figure_curves:
    input:
        students=[
            f"{OUT}/students/{key(run, RUN_AXES)}/manifest.json" for run in MAIN_RUNS
        ],
        code=code("analysis.figure_curves"),
    output:
        pdf=f"{FIGURES}/curves.pdf",
        png=report(
            f"{FIGURES}/curves.png",
            caption="../report/curves.rst",
            category="3 Figures",
            labels={"figure": "Training curves"},
        ),
        csv=f"{FIGURES}/curves.csv",
        mean=f"{FIGURES}/mean_curves.csv",
    log:
        f"{OUT}/logs/figure_curves.log",
    benchmark:
        f"{OUT}/benchmarks/figure_curves.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "figure: training curves"
    shell:
        "directcm figure curves --students {input.students} --out {output.pdf} --log {log}"


rule figure_results:
    input:
        table=f"{TABLES}/table1.csv",
        code=code("analysis.figure_results"),
    output:
        pdf=f"{FIGURES}/results.pdf",
        png=report(
            f"{FIGURES}/results.png",
            caption="../report/results.rst",
            category="3 Figures",
            labels={"figure": "Table 1 as a figure"},
        ),
        csv=f"{FIGURES}/results.csv",
    log:
        f"{OUT}/logs/figure_results.log",
    benchmark:
        f"{OUT}/benchmarks/figure_results.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "figure: Table 1 drawn"
    shell:
        "directcm figure results --table {input.table} --out {output.pdf} --log {log}"


rule figure_frontier:
    input:
        metrics=f"{OUT}/collected/paper/metrics.csv",
        code=code("analysis.figure_frontier"),
    output:
        pdf=f"{FIGURES}/frontier.pdf",
        png=report(
            f"{FIGURES}/frontier.png",
            caption="../report/frontier.rst",
            category="3 Figures",
            labels={
                "figure": "The frontier: ODE error against quality along training"
            },
        ),
        csv=f"{FIGURES}/frontier.csv",
    log:
        f"{OUT}/logs/figure_frontier.log",
    benchmark:
        f"{OUT}/benchmarks/figure_frontier.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        name="frontier",
        tables=tables_of,
        setting=MAIN_SETTING,
        paper=PAPER_SCALE,
        alpha=CONFIG.statistics.alpha,
    message:
        "figure: {params.name}"
    shell:
        "directcm figure {params.name} {params.tables} --setting {params.setting:q} --paper-scale {params.paper}"
        " --alpha {params.alpha} --out {output.pdf} --log {log}"


use rule figure_frontier as figure_sweep with:
    input:
        metrics=f"{OUT}/collected/paper/metrics.csv",
        comparisons=f"{OUT}/collected/paper/comparisons.csv",
        code=code("analysis.figure_sweep"),
    output:
        pdf=f"{FIGURES}/sweep_{{axis}}.pdf",
        png=report(
            f"{FIGURES}/sweep_{{axis}}.png",
            caption="../report/sweep.rst",
            category="3 Figures",
            labels=lambda wildcards: {"figure": SWEEPS[wildcards.axis]},
        ),
        csv=f"{FIGURES}/sweep_{{axis}}.csv",
    log:
        f"{OUT}/logs/figure_sweep_{{axis}}.log",
    benchmark:
        f"{OUT}/benchmarks/figure_sweep_{{axis}}.tsv"
    params:
        name=lambda wildcards: f"sweep --axis {wildcards.axis}",
        tables=tables_of,
        setting=lambda wildcards: json.dumps(base_setting(CONFIG, wildcards.axis)),
        # For the caption: what stays the same.
        fixed=lambda wildcards: ", ".join(
            f"{name} = {base_setting(CONFIG, wildcards.axis)[name]:g}"
            for name in ("N", "w")
            if name != wildcards.axis
        ),
        paper=PAPER_SCALE,
        alpha=CONFIG.statistics.alpha,


use rule figure_frontier as figure_compute with:
    input:
        metrics=f"{OUT}/collected/paper/metrics.csv",
        students=f"{OUT}/collected/paper/students.csv",
        code=code("analysis.figure_compute"),
    output:
        pdf=f"{FIGURES}/compute.pdf",
        png=report(
            f"{FIGURES}/compute.png",
            caption="../report/compute.rst",
            category="3 Figures",
            labels={"figure": "Matched compute"},
        ),
        csv=f"{FIGURES}/compute.csv",
    log:
        f"{OUT}/logs/figure_compute.log",
    benchmark:
        f"{OUT}/benchmarks/figure_compute.tsv"
    params:
        name="compute",
        tables=tables_of,
        setting=MAIN_SETTING,
        paper=PAPER_SCALE,
        alpha=CONFIG.statistics.alpha,


use rule figure_frontier as figure_error with:
    input:
        errors=f"{OUT}/collected/paper/errors.csv",
        code=code("analysis.figure_error"),
    output:
        pdf=f"{FIGURES}/error.pdf",
        png=report(
            f"{FIGURES}/error.png",
            caption="../report/error.rst",
            category="3 Figures",
            labels={"figure": "Where the error is"},
        ),
        csv=f"{FIGURES}/error.csv",
    log:
        f"{OUT}/logs/figure_error.log",
    benchmark:
        f"{OUT}/benchmarks/figure_error.tsv"
    params:
        name="error",
        tables=tables_of,
        setting=MAIN_SETTING,
        paper=PAPER_SCALE,
        alpha=CONFIG.statistics.alpha,


use rule figure_frontier as figure_budget with:
    input:
        metrics=f"{OUT}/collected/paper/metrics.csv",
        code=code("analysis.figure_budget"),
    output:
        pdf=f"{FIGURES}/budget.pdf",
        png=report(
            f"{FIGURES}/budget.png",
            caption="../report/budget.rst",
            category="3 Figures",
            labels={"figure": "Budget and capacity"},
        ),
        csv=f"{FIGURES}/budget.csv",
    log:
        f"{OUT}/logs/figure_budget.log",
    benchmark:
        f"{OUT}/benchmarks/figure_budget.tsv"
    params:
        name="budget",
        tables=tables_of,
        setting=MAIN_SETTING,
        paper=PAPER_SCALE,
        alpha=CONFIG.statistics.alpha,


use rule figure_frontier as figure_sensitivity with:
    input:
        comparisons=f"{OUT}/collected/paper/comparisons.csv",
        code=code("analysis.figure_sensitivity"),
    output:
        pdf=f"{FIGURES}/sensitivity.pdf",
        png=report(
            f"{FIGURES}/sensitivity.png",
            caption="../report/sensitivity.rst",
            category="3 Figures",
            labels={"figure": "Loss and learning rate"},
        ),
        csv=f"{FIGURES}/sensitivity.csv",
    log:
        f"{OUT}/logs/figure_sensitivity.log",
    benchmark:
        f"{OUT}/benchmarks/figure_sensitivity.tsv"
    params:
        name="sensitivity",
        tables=tables_of,
        setting=MAIN_SETTING,
        paper=PAPER_SCALE,
        alpha=CONFIG.statistics.alpha,


use rule figure_frontier as figure_map with:
    input:
        comparisons=f"{OUT}/collected/paper/comparisons.csv",
        code=code("analysis.figure_map"),
    output:
        pdf=f"{FIGURES}/map.pdf",
        png=report(
            f"{FIGURES}/map.png",
            caption="../report/map.rst",
            category="3 Figures",
            labels={"figure": "Map: who is better where"},
        ),
        csv=f"{FIGURES}/map.csv",
    log:
        f"{OUT}/logs/figure_map.log",
    benchmark:
        f"{OUT}/benchmarks/figure_map.tsv"
    params:
        name="map",
        tables=tables_of,
        setting=MAIN_SETTING,
        paper=PAPER_SCALE,
        alpha=CONFIG.statistics.alpha,


rule gallery:
    input:
        pictures=lambda wildcards: [
            f"{FIGURES}/{name}.png" for name in FIGURES_OF[wildcards.scope]
        ],
        code=code("analysis.gallery"),
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
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        pictures=lambda wildcards: json.dumps(
            [
                {
                    "path": f"{FIGURES}/{name}.png",
                    "title": title,
                    "section": (
                        "Samples" if name in ("samples", "gallery") else "Figures"
                    ),
                }
                for name, title in FIGURES_OF[wildcards.scope].items()
            ]
        ),
        title=f"Gallery, preset {CONFIG.preset}",
    message:
        "gallery: all pictures, scope {wildcards.scope}"
    shell:
        "directcm gallery --pictures {params.pictures:q} --title {params.title:q} --out {output} --log {log}"


rule costs:
    input:
        artifacts=lambda wildcards: [
            f"{OUT}/{name}/manifest.json"
            for name in paths.artefacts(CONFIG, SCOPES[wildcards.scope])
        ],
        # Waited for, so that no step is counted half, but no reason to run again.
        others=ancient(lambda wildcards: others_of(wildcards.scope)),
        code=code("analysis.provenance", "paths"),
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
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=settings(CONFIG),
        results=subpath(output[0], ancestor=2),
    message:
        "costs: what each step cost, scope {wildcards.scope}"
    shell:
        "directcm costs --settings {params.settings:q} --results {params.results}"
        " --scope {wildcards.scope} --out {output.html} --log {log}"


rule provenance:
    input:
        artifacts=lambda wildcards: [
            f"{OUT}/{name}/manifest.json"
            for name in paths.artefacts(CONFIG, SCOPES[wildcards.scope])
        ],
        # Waited for, so that no step is counted half, but no reason to run again.
        others=ancient(lambda wildcards: others_of(wildcards.scope)),
        code=code("analysis.provenance", "paths"),
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
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=settings(CONFIG),
        results=subpath(output[0], ancestor=2),
    message:
        "provenance: what ran, and from what, scope {wildcards.scope}"
    shell:
        "directcm provenance --settings {params.settings:q} --results {params.results}"
        " --scope {wildcards.scope} --out {output.html} --log {log}"
