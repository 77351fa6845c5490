MAIN = [key(run, RUN_AXES) for run in MAIN_RUNS]
FIRST = {}
for _run in MAIN_RUNS:
    FIRST.setdefault(METHODS[_run["method"]], key(_run, RUN_AXES))
FEWEST = min(CONFIG.evaluation.steps)
METRICS_MAIN = [f"{OUT}/metrics/{TEACHER_SET}/manifest.json"] + [
    f"{OUT}/metrics/students/{run}/sampling_steps~{k}/manifest.json"
    for run in MAIN
    for k in CONFIG.evaluation.steps
]
# What tables read of the configuration: nothing about how teacher and extractors were trained.
READ = json.dumps(
    CONFIG.model_dump(
        mode="json",
        exclude={
            "teacher": {"micro_sdxl"},
            "encode": True,
            "extractors": True,
            "figures": True,
        },
    ),
    sort_keys=True,
)
TABLES = f"{OUT}/tables"
FIGURES = f"{OUT}/figures"
RESULTS = [
    *multiext(f"{TABLES}/table1", ".csv", ".tex", ".html", ".json"),
    *multiext(f"{TABLES}/paired", ".csv", ".html"),
    f"{TABLES}/curves.csv",
    f"{TABLES}/mean_curves.csv",
    *expand(
        f"{FIGURES}/{{figure}}.{{suffix}}",
        figure=["samples", "curves", "results"],
        suffix=["pdf", "png"],
    ),
    f"{OUT}/provenance.html",
    f"{OUT}/costs.csv",
    *[f"{OUT}/metrics/{s}/manifest.json" for s in SETS],
    *[f"{OUT}/students/{run}/README.md" for run in RUNS.instance_patterns],
]


rule table:
    input:
        metrics=METRICS_MAIN,
        code=code("analysis.table"),
    output:
        csv=report(
            f"{TABLES}/table1.csv",
            caption="../report/table1.rst",
            category="1 Tables",
            labels={"table": "Table 1, main comparison", "form": "CSV"},
        ),
        tex=f"{TABLES}/table1.tex",
        html=report(
            f"{TABLES}/table1.html",
            caption="../report/table1.rst",
            category="1 Tables",
            labels={"table": "Table 1, main comparison", "form": "table"},
        ),
        json=f"{TABLES}/table1.json",
    log:
        f"{OUT}/logs/table.log",
    benchmark:
        f"{OUT}/benchmarks/table.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=READ,
    message:
        "table: Table 1"
    shell:
        "directcm table --settings {params.settings:q} --metrics {input.metrics} --out {output.csv} --log {log}"


rule paired:
    input:
        metrics=METRICS_MAIN,
        code=code("analysis.paired"),
    output:
        csv=report(
            f"{TABLES}/paired.csv",
            caption="../report/paired.rst",
            category="1 Tables",
            labels={"table": "CM minus Direct CM, paired", "form": "CSV"},
        ),
        html=report(
            f"{TABLES}/paired.html",
            caption="../report/paired.rst",
            category="1 Tables",
            labels={"table": "CM minus Direct CM, paired", "form": "table"},
        ),
    log:
        f"{OUT}/logs/paired.log",
    benchmark:
        f"{OUT}/benchmarks/paired.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=READ,
    message:
        "paired: CM against Direct CM, prompt by prompt"
    shell:
        "directcm paired --settings {params.settings:q} --metrics {input.metrics} --out {output.csv} --log {log}"


rule figure_samples:
    input:
        noise=f"{OUT}/noise/manifest.json",
        teacher=[
            f"{OUT}/reference/{key(DEFAULT_ODE, ODE_AXES)}/shard~{i}/manifest.json"
            for i in range(CONFIG.evaluation.shards)
        ],
        students=[
            f"{OUT}/samples/{run}/sampling_steps~{FEWEST}/manifest.json"
            for run in FIRST.values()
        ],
        code=code("analysis.figure"),
    output:
        pdf=f"{FIGURES}/samples.pdf",
        png=report(
            f"{FIGURES}/samples.png",
            caption="../report/samples.rst",
            category="2 Figures",
            labels={"figure": "Figure 2, samples from the same noise"},
        ),
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
        samples=lambda wildcards, input: [f"Teacher={p}" for p in input.teacher]
        + [f"{row}={p}" for row, p in zip(FIRST, input.students)],
    message:
        "figure: samples from the same noise"
    shell:
        "directcm figure samples --noise {input.noise} --samples {params.samples:q} --columns {params.columns}"
        " --out {output.pdf} --log {log}"


rule figure_curves:
    input:
        students=[f"{OUT}/students/{run}/manifest.json" for run in MAIN],
        code=code("analysis.figure"),
    output:
        pdf=f"{FIGURES}/curves.pdf",
        png=report(
            f"{FIGURES}/curves.png",
            caption="../report/curves.rst",
            category="2 Figures",
            labels={"figure": "Training curves"},
        ),
        csv=f"{TABLES}/curves.csv",
        mean=f"{TABLES}/mean_curves.csv",
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
        "directcm figure curves --students {input.students} --table {output.csv} --out {output.pdf} --log {log}"


rule figure_results:
    input:
        table=f"{TABLES}/table1.csv",
        code=code("analysis.figure"),
    output:
        pdf=f"{FIGURES}/results.pdf",
        png=report(
            f"{FIGURES}/results.png",
            caption="../report/results.rst",
            category="2 Figures",
            labels={"figure": "Table 1 as a figure"},
        ),
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


# Everything else that is made: waited for, so that no step's cost is counted half, but no reason to run again.
OTHERS = [f for f in RESULTS if not f.startswith((f"{OUT}/provenance", f"{OUT}/costs"))]


rule provenance:
    input:
        artifacts=[f"{OUT}/{name}/manifest.json" for name in paths.artefacts(CONFIG)],
        others=ancient(OTHERS),
        code=code("analysis.provenance", "paths"),
    output:
        html=report(
            f"{OUT}/provenance.html",
            caption="../report/provenance.rst",
            category="3 Provenance and costs",
            labels={"page": "What ran, from what"},
        ),
        csv=report(
            f"{OUT}/costs.csv",
            caption="../report/provenance.rst",
            category="3 Provenance and costs",
            labels={"page": "Costs by step (CSV)"},
        ),
    log:
        f"{OUT}/logs/provenance.log",
    benchmark:
        f"{OUT}/benchmarks/provenance.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=settings(CONFIG),
        results=subpath(output[0], parent=True),
    message:
        "provenance: what ran, from what, and what it cost"
    shell:
        "directcm provenance --settings {params.settings:q} --results {params.results}"
        " --out {output.html} --log {log}"
