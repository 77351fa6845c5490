# Seconds each: on a cluster they run where the command does.
localrules:
    collect,
    table1,
    table2,
    table3,
    table4,
    table_metrics,
    table_comparison,
    table_search,
    claims,
    opening,
    figure_supervision,
    figure_samples,
    figure_gallery,
    figure_curves,
    figure_results,
    figure_frontier,
    figure_sweep,
    figure_compute,
    figure_error,
    figure_budget,
    figure_sensitivity,
    figure_map,
    figure_training,
    figure_editing,
    figure_convergence,
    gallery,
    costs,
    provenance,
    cards,


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
    output:
        f"{OUT}/comparisons/{{more}}{SETTING}.csv",
    log:
        f"{OUT}/logs/compare/{{more}}{SETTING}.log",
    benchmark:
        f"{OUT}/benchmarks/compare/{{more}}{SETTING}.tsv"
    conda:
        "../../envs/directcm.yaml"
    # One setting has all the methods where there are more than the paper's two.
    threads: min(2, len(COMPARED.pairs))
    resources:
        mem_mb=later(2000, 16000),
        runtime=later(20, 240),
    params:
        code=code("analysis.compare"),
        settings=literal(settings(CONFIG.statistics)),
        setting=lambda wildcards: axes_of(wildcards, Setting),
        features=lambda wildcards, input: named(NEEDED, input.features),
        teacher=lambda wildcards, input: named(NEEDED, input.teacher),
        data=lambda wildcards, input: named(NEEDED, input.data),
        pairs=COMPARED.pairs,
        along=COMPARED.along,
        stepwise=COMPARED.stepwise,
        claimed=COMPARED.claimed,
        others=lambda wildcards: beside_of(wildcards),
        beyond=lambda wildcards: beyond(wildcards),
        seed=SEED,
    message:
        "compare: {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}, {wildcards.adapter}, {wildcards.loss}, lr {wildcards.lr}, {wildcards.steps} steps"
    shell:
        verb(
            "compare",
            "pairs stepwise along claimed beyond? others? features teacher data",
        )


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
    log:
        f"{OUT}/logs/collect/{{scope}}.log",
    benchmark:
        f"{OUT}/benchmarks/collect/{{scope}}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.collect", "paths"),
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
        metrics=lambda wildcards: [
            f"{OUT}/metrics/students/{run.key}/manifest.json"
            for run in SCOPES[wildcards.scope]
        ],
    output:
        f"{OUT}/cards/{{scope}}.csv",
    log:
        f"{OUT}/logs/cards/{{scope}}.log",
    benchmark:
        f"{OUT}/benchmarks/cards/{{scope}}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("cards"),
        settings=lambda wildcards: READ[wildcards.scope],
        results=subpath(output[0], ancestor=2),
    message:
        "cards: the students' model cards, scope {wildcards.scope}"
    shell:
        verb("cards", wildcards="scope")


rule table1:
    input:
        metrics=f"{OUT}/collected/main/metrics.csv",
        comparisons=f"{OUT}/collected/main/comparisons.csv",
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
    params:
        code=code("analysis.tables.table1"),
        name="table1",
        settings=literal(READ["main"]),
    message:
        "table: {params.name}"
    shell:
        "directcm table {params.name} --settings {params.settings:q} --metrics {input.metrics}"
        " --comparisons {input.comparisons} --out {output.csv} --log {log}"


use rule table1 as table2 with:
    input:
        metrics=f"{OUT}/collected/paper/metrics.csv",
        comparisons=f"{OUT}/collected/paper/comparisons.csv",
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
        code=code("analysis.tables.table2"),
        name="table2",
        settings=literal(READ["paper"]),


use rule table1 as table3 with:
    input:
        metrics=f"{OUT}/collected/paper/metrics.csv",
        comparisons=f"{OUT}/collected/paper/comparisons.csv",
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
        code=code("analysis.tables.table3"),
        name="table3",
        settings=literal(READ["paper"]),


rule table4:
    input:
        metrics=f"{OUT}/collected/paper/metrics.csv",
        comparisons=f"{OUT}/collected/paper/comparisons.csv",
        students=f"{OUT}/collected/paper/students.csv",
    output:
        csv=report(
            f"{TABLES}/table4.csv",
            caption="../report/table4.rst",
            category="2 Tables",
            labels={"table": "Table 4, every method", "form": "CSV"},
        ),
        html=report(
            f"{TABLES}/table4.html",
            caption="../report/table4.rst",
            category="2 Tables",
            labels={"table": "Table 4, every method", "form": "table"},
        ),
        tex=f"{TABLES}/table4.tex",
    log:
        f"{OUT}/logs/table4.log",
    benchmark:
        f"{OUT}/benchmarks/table4.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.tables.table4"),
        settings=literal(READ["paper"]),
    message:
        "table: table4"
    shell:
        "directcm table table4 --settings {params.settings:q} --metrics {input.metrics}"
        " --comparisons {input.comparisons} --students-table {input.students} --out {output.csv} --log {log}"


use rule table1 as table_metrics with:
    input:
        metrics=f"{OUT}/collected/main/metrics.csv",
        comparisons=f"{OUT}/collected/main/comparisons.csv",
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
        code=code("analysis.tables.table_metrics"),
        name="table_metrics",
        settings=literal(READ["main"]),


use rule table1 as table_comparison with:
    input:
        metrics=f"{OUT}/collected/main/metrics.csv",
        comparisons=f"{OUT}/collected/main/comparisons.csv",
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
        code=code("analysis.tables.table_comparison"),
        name="table_comparison",
        settings=literal(READ["main"]),


rule table_search:
    input:
        searches=[
            f"{OUT}/search/{run}/manifest.json"
            for run in paths.searched(CONFIG, MAIN_RUNS)
        ],
    output:
        csv=report(
            f"{TABLES}/table_search.csv",
            caption="../report/search.rst",
            category="2 Tables",
            labels={"table": "Sampling times, even and found", "form": "CSV"},
        ),
        html=report(
            f"{TABLES}/table_search.html",
            caption="../report/search.rst",
            category="2 Tables",
            labels={"table": "Sampling times, even and found", "form": "table"},
        ),
        tex=f"{TABLES}/table_search.tex",
    log:
        f"{OUT}/logs/table_search.log",
    benchmark:
        f"{OUT}/benchmarks/table_search.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.tables.table_search"),
        settings=literal(READ["main"]),
    message:
        "table: sampling times, even and found"
    shell:
        "directcm table table_search --settings {params.settings:q} --searches {input.searches}"
        " --out {output.csv} --log {log}"


rule claims:
    input:
        claims="workflow/claims.yaml",
        comparisons=f"{OUT}/collected/{{scope}}/comparisons.csv",
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
    log:
        f"{OUT}/logs/claims/{{scope}}.log",
    benchmark:
        f"{OUT}/benchmarks/claims/{{scope}}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.tables.claims"),
        settings=literal(READ["paper"]),
    message:
        "claims: verdicts, scope {wildcards.scope}"
    shell:
        verb("claims", out="{output.csv}")


rule opening:
    input:
        claims="workflow/claims.yaml",
        comparisons=f"{OUT}/collected/{{scope}}/comparisons.csv",
        # Table 1 is the main comparison's in every scope.
        metrics=f"{OUT}/collected/main/metrics.csv",
        compared=f"{OUT}/collected/main/comparisons.csv",
        drawn=f"{FIGURES}/samples.csv",
        teacher=draw_of(CONFIG.ode.key),
        students=[f"{OUT}/samples/{run}/manifest.json" for run in FIRST.values()],
    output:
        f"{OUT}/opening/{{scope}}.html",
    log:
        f"{OUT}/logs/opening/{{scope}}.log",
    benchmark:
        f"{OUT}/benchmarks/opening/{{scope}}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.opening"),
        settings=literal(READ["paper"]),
        samples=rows_of,
    message:
        "opening: the report's first page, scope {wildcards.scope}"
    shell:
        verb("opening")


rule figure_supervision:
    input:
        trajectories=f"{OUT}/trajectories/manifest.json",
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
    params:
        code=code("analysis.figure_supervision"),
    message:
        "figure: the two supervisions"
    shell:
        "directcm figure supervision --trajectories {input.trajectories} --out {output.pdf} --log {log}"


rule figure_samples:
    input:
        noise=f"{OUT}/noise/manifest.json",
        teacher=draw_of(CONFIG.ode.key),
        students=[f"{OUT}/samples/{run}/manifest.json" for run in FIRST.values()],
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
    params:
        code=code("analysis.figure_samples"),
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
        teacher=draw_of(CONFIG.ode.key),
        students=[f"{OUT}/samples/{run}/manifest.json" for run in FIRST.values()],
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
        code=code("analysis.figure_samples"),
        columns=CONFIG.figures.gallery,
        samples=rows_of,


rule figure_curves:
    input:
        students=[f"{OUT}/students/{run.key}/manifest.json" for run in MAIN_RUNS],
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
    params:
        code=code("analysis.figure_curves"),
    message:
        "figure: training curves"
    shell:
        "directcm figure curves --students {input.students} --out {output.pdf} --log {log}"


rule figure_results:
    input:
        table=f"{TABLES}/table1.csv",
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
    params:
        code=code("analysis.figure_results"),
    message:
        "figure: Table 1 drawn"
    shell:
        "directcm figure results --table {input.table} --out {output.pdf} --log {log}"


rule figure_frontier:
    input:
        metrics=f"{OUT}/collected/paper/metrics.csv",
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
    params:
        code=code("analysis.figure_frontier"),
        name="frontier",
        tables=tables_of,
        setting=MAIN_SETTING,
        space=SPACE,
        paper=PAPER_SCALE,
        alpha=CONFIG.statistics.alpha,
    message:
        "figure: {params.name}"
    shell:
        "directcm figure {params.name} {params.tables} --setting {params.setting:q} --paper-scale {params.paper}"
        " --alpha {params.alpha} --space {params.space} --out {output.pdf} --log {log}"


use rule figure_frontier as figure_training with:
    input:
        metrics=f"{OUT}/collected/paper/metrics.csv",
    output:
        pdf=f"{FIGURES}/training.pdf",
        png=report(
            f"{FIGURES}/training.png",
            caption="../report/training.rst",
            category="3 Figures",
            labels={"figure": "Along training, every method"},
        ),
        csv=f"{FIGURES}/training.csv",
    log:
        f"{OUT}/logs/figure_training.log",
    benchmark:
        f"{OUT}/benchmarks/figure_training.tsv"
    params:
        code=code("analysis.figure_training"),
        name="training",
        tables=tables_of,
        setting=MAIN_SETTING,
        space=SPACE,
        paper=PAPER_SCALE,
        alpha=CONFIG.statistics.alpha,


use rule figure_frontier as figure_sweep with:
    input:
        metrics=f"{OUT}/collected/paper/metrics.csv",
        comparisons=f"{OUT}/collected/paper/comparisons.csv",
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
        code=code("analysis.figure_sweep"),
        name=lambda wildcards: f"sweep --axis {wildcards.axis}",
        tables=tables_of,
        setting=lambda wildcards: json.dumps(
            base_setting(CONFIG, wildcards.axis).axes()
        ),
        # For the caption: what stays the same.
        fixed=lambda wildcards: ", ".join(
            f"{name} = {getattr(base_setting(CONFIG, wildcards.axis), name):g}"
            for name in ("N", "w")
            if name != wildcards.axis
        ),
        space=SPACE,
        paper=PAPER_SCALE,
        alpha=CONFIG.statistics.alpha,


use rule figure_frontier as figure_compute with:
    input:
        metrics=f"{OUT}/collected/paper/metrics.csv",
        students=f"{OUT}/collected/paper/students.csv",
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
        code=code("analysis.figure_compute"),
        name="compute",
        tables=tables_of,
        setting=MAIN_SETTING,
        space=SPACE,
        paper=PAPER_SCALE,
        alpha=CONFIG.statistics.alpha,


use rule figure_frontier as figure_error with:
    input:
        errors=f"{OUT}/collected/paper/errors.csv",
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
        code=code("analysis.figure_error"),
        name="error",
        tables=tables_of,
        setting=MAIN_SETTING,
        space=SPACE,
        paper=PAPER_SCALE,
        alpha=CONFIG.statistics.alpha,


use rule figure_frontier as figure_budget with:
    input:
        metrics=f"{OUT}/collected/paper/metrics.csv",
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
        code=code("analysis.figure_budget"),
        name="budget",
        tables=tables_of,
        setting=MAIN_SETTING,
        space=SPACE,
        paper=PAPER_SCALE,
        alpha=CONFIG.statistics.alpha,


use rule figure_frontier as figure_sensitivity with:
    input:
        comparisons=f"{OUT}/collected/paper/comparisons.csv",
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
        code=code("analysis.figure_sensitivity"),
        name="sensitivity",
        tables=tables_of,
        setting=MAIN_SETTING,
        space=SPACE,
        paper=PAPER_SCALE,
        alpha=CONFIG.statistics.alpha,


use rule figure_frontier as figure_map with:
    input:
        comparisons=f"{OUT}/collected/paper/comparisons.csv",
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
        code=code("analysis.figure_map"),
        name="map",
        tables=tables_of,
        setting=MAIN_SETTING,
        space=SPACE,
        paper=PAPER_SCALE,
        alpha=CONFIG.statistics.alpha,


rule figure_editing:
    input:
        teacher=f"{OUT}/edits/teacher/{MAIN_RUNS[0].ode.key}/manifest.json",
        students=[
            f"{OUT}/edits/students/{run.key}/manifest.json" for run in CONFIG.edited()
        ],
    output:
        pdf=f"{FIGURES}/editing.pdf",
        png=report(
            f"{FIGURES}/editing.png",
            caption="../report/editing.rst",
            category="3 Figures",
            labels={"figure": "Editing without training"},
        ),
        csv=f"{FIGURES}/editing.csv",
    log:
        f"{OUT}/logs/figure_editing.log",
    benchmark:
        f"{OUT}/benchmarks/figure_editing.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.figure_editing"),
        columns=CONFIG.figures.editing,
        edits=lambda wildcards, input: [f"Teacher={input.teacher}"]
        + [
            f"{METHODS[run.method]}={path}"
            for run, path in zip(CONFIG.edited(), input.students)
        ],
    message:
        "figure: editing without training"
    shell:
        "directcm figure editing --edits {params.edits:q} --columns {params.columns} --out {output.pdf} --log {log}"


rule figure_convergence:
    input:
        convergence=f"{OUT}/convergence/manifest.json",
    output:
        pdf=f"{FIGURES}/convergence.pdf",
        png=report(
            f"{FIGURES}/convergence.png",
            caption="../report/convergence.rst",
            category="3 Figures",
            labels={"figure": "Convergence of the theory"},
        ),
        csv=f"{FIGURES}/convergence.csv",
    log:
        f"{OUT}/logs/figure_convergence.log",
    benchmark:
        f"{OUT}/benchmarks/figure_convergence.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.figure_convergence"),
    message:
        "figure: convergence of the theory"
    shell:
        "directcm figure convergence --convergence {input.convergence} --out {output.pdf} --log {log}"


rule gallery:
    input:
        pictures=lambda wildcards: [
            f"{FIGURES}/{name}.png" for name in FIGURES_OF[wildcards.scope]
        ],
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
    params:
        code=code("analysis.gallery"),
        pictures=lambda wildcards: json.dumps(
            [
                {
                    "path": f"{FIGURES}/{name}.png",
                    "title": title,
                    "section": (
                        "Samples"
                        if name in ("samples", "gallery", "editing")
                        else "Figures"
                    ),
                }
                for name, title in FIGURES_OF[wildcards.scope].items()
            ]
        ),
        title=f"Gallery, preset {CONFIG.preset}",
    message:
        "gallery: all pictures, scope {wildcards.scope}"
    shell:
        verb("gallery", "title")


rule costs:
    input:
        artifacts=lambda wildcards: [
            f"{OUT}/{name}/manifest.json"
            for name in paths.artefacts(
                CONFIG, SCOPES[wildcards.scope], wildcards.scope
            )
        ],
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
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.provenance", "paths"),
        settings=literal(settings(CONFIG)),
        results=subpath(output[0], ancestor=2),
    message:
        "costs: what each step cost, scope {wildcards.scope}"
    shell:
        verb("costs", wildcards="scope", out="{output.html}")


rule provenance:
    input:
        artifacts=lambda wildcards: [
            f"{OUT}/{name}/manifest.json"
            for name in paths.artefacts(
                CONFIG, SCOPES[wildcards.scope], wildcards.scope
            )
        ],
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
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    params:
        code=code("analysis.provenance", "paths"),
        settings=literal(settings(CONFIG)),
        results=subpath(output[0], ancestor=2),
    message:
        "provenance: what ran, and from what, scope {wildcards.scope}"
    shell:
        verb("provenance", wildcards="scope", out="{output.html}")
