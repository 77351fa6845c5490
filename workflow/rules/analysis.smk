# What the tables read of the configuration: nothing about how teacher and extractors were trained.
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
BY_SETTING = {}
for _run in ALL_RUNS:
    BY_SETTING.setdefault(key(_run, SETTING_AXES), []).append(key(_run, RUN_AXES))


def students_of(wildcards, pattern):
    """A path per student of a setting."""
    setting = ",".join(f"{n}~{getattr(wildcards, n)}" for n in SETTING_AXES)
    return [pattern.format(run) for run in BY_SETTING[setting]]


def of_scope(scope, *kinds):
    """What a scope's tidy tables are collected from."""
    found = paths.measured(CONFIG, SCOPES[scope])
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
        settings=READ,
        results=OUT,
        out=subpath(output[0], parent=True),
    message:
        "collect: the tidy tables, scope {wildcards.scope}"
    shell:
        "directcm collect --settings {params.settings:q} --results {params.results} --scope {wildcards.scope}"
        " --out {params.out} --log {log}"


RESULTS = expand(
    f"{OUT}/collected/main/{{table}}.csv",
    table=["metrics", "students", "errors", "comparisons"],
)
EVERYTHING = expand(
    f"{OUT}/collected/paper/{{table}}.csv",
    table=["metrics", "students", "errors", "comparisons"],
)
