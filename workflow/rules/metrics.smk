TRAINED_HERE = [name for name, e in EXTRACTORS.items() if not e.weights]
NEEDED = CONFIG.extractor_names()


rule extractor:
    input:
        data=f"{OUT}/data/manifest.json",
        code=code("metrics.clip_tiny"),
    output:
        f"{OUT}/extractors/{{extractor}}/manifest.json",
    params:
        settings=lambda wildcards: settings(
            getattr(CONFIG.extractors, wildcards.extractor)
        ),
        seed=SEED,
        out=subpath(output[0], parent=True),
    log:
        f"{OUT}/logs/extractor/{{extractor}}.log",
    benchmark:
        f"{OUT}/benchmarks/extractor/{{extractor}}.tsv"
    threads: 1
    resources:
        mem_mb=later(4000, 16000),
        runtime=later(30, 60),
        gpu=1,
    conda:
        "../../envs/directcm.yaml"
    message:
        "extractor: {wildcards.extractor}"
    shell:
        "directcm extractor --name {wildcards.extractor} --settings {params.settings:q} --data {input.data}"
        " --seed {params.seed} --threads {threads} --out {params.out} --log {log}"


def samples_of(wildcards):
    """The sample folders of a set: the teacher's shards, a student's one, none for the data."""
    kind, _, rest = wildcards.set.partition("/")
    if kind == "teacher":
        return [
            f"{OUT}/reference/{rest}/shard~{i}/manifest.json"
            for i in range(CONFIG.evaluation.shards)
        ]
    return [f"{OUT}/samples/{rest}/manifest.json"] if kind == "students" else []


def trained(wildcards):
    return (
        [f"{OUT}/extractors/{wildcards.extractor}/manifest.json"]
        if wildcards.extractor in TRAINED_HERE
        else []
    )


rule features:
    input:
        data=f"{OUT}/data/manifest.json",
        noise=f"{OUT}/noise/manifest.json",
        samples=samples_of,
        extractor=trained,
        code=code("metrics.features"),
    output:
        f"{OUT}/features/{{extractor}}/{{set}}/manifest.json",
    params:
        samples=lambda wildcards, input: (
            f"--samples {' '.join(input.samples)}" if input.samples else ""
        ),
        extractor=lambda wildcards, input: (
            f"--extractor {input.extractor}" if input.extractor else ""
        ),
        batch_size=CONFIG.evaluation.batch_size,
        out=subpath(output[0], parent=True),
    log:
        f"{OUT}/logs/features/{{extractor}}/{{set}}.log",
    benchmark:
        f"{OUT}/benchmarks/features/{{extractor}}/{{set}}.tsv"
    threads: 1
    wildcard_constraints:
        set="data|(teacher|students)/.+",
    resources:
        mem_mb=later(4000, 24000),
        runtime=later(20, 120),
        gpu=1,
    conda:
        "../../envs/directcm.yaml"
    message:
        "features: {wildcards.extractor} of {wildcards.set}"
    shell:
        "directcm features --name {wildcards.extractor} {params.extractor} {params.samples}"
        " --data {input.data} --noise {input.noise} --batch-size {params.batch_size} --threads {threads}"
        " --out {params.out} --log {log}"


def features_of(what):
    return [f"{OUT}/features/{name}/{what}/manifest.json" for name in NEEDED]


def reference_of(wildcards):
    """The teacher's set under the student's own ODE."""
    return f"teacher/solver~{wildcards.solver},N~{wildcards.N},w~{wildcards.w}"


def axes_of(wildcards, names):
    whole = {"N", "batch_size", "steps", "seed"}
    real = {"w", "lr"}
    values = {n: getattr(wildcards, n) for n in names}
    return json.dumps(
        {
            n: int(v) if n in whole else float(v) if n in real else v
            for n, v in values.items()
        }
    )


rule evaluate_teacher:
    input:
        data=f"{OUT}/data/manifest.json",
        noise=f"{OUT}/noise/manifest.json",
        samples=shards(REFERENCE, CONFIG.evaluation.shards),
        features=features_of(f"teacher/{ODE}"),
        data_features=features_of("data"),
        code=code("metrics.evaluate"),
    output:
        f"{OUT}/metrics/teacher/{ODE}/manifest.json",
    params:
        settings=settings(CONFIG.statistics),
        metrics=CONFIG.metric_names(),
        run=lambda wildcards: axes_of(wildcards, ODE_AXES),
        seed=SEED,
        out=subpath(output[0], parent=True),
    log:
        f"{OUT}/logs/evaluate/teacher/{ODE}.log",
    benchmark:
        f"{OUT}/benchmarks/evaluate/teacher/{ODE}.tsv"
    threads: 1
    resources:
        mem_mb=later(2000, 16000),
        runtime=later(20, 60),
    conda:
        "../../envs/directcm.yaml"
    message:
        "evaluate: the teacher"
    shell:
        "directcm evaluate --settings {params.settings:q} --metrics {params.metrics} --row Teacher"
        " --steps {wildcards.N} --run {params.run:q} --seed {params.seed} --data {input.data} --noise {input.noise}"
        " --samples {input.samples} --features {input.features} --data-features {input.data_features}"
        " --out {params.out} --log {log}"


rule evaluate:
    input:
        data=f"{OUT}/data/manifest.json",
        noise=f"{OUT}/noise/manifest.json",
        samples=f"{OUT}/samples/{RUN}/sampling_steps~{{sampling_steps}}/manifest.json",
        features=features_of(f"students/{RUN}/sampling_steps~{{sampling_steps}}"),
        data_features=features_of("data"),
        reference=shards(REFERENCE, CONFIG.evaluation.shards),
        reference_features=features_of(f"teacher/{ODE}"),
        code=code("metrics.evaluate"),
    output:
        f"{OUT}/metrics/students/{RUN}/sampling_steps~{{sampling_steps}}/manifest.json",
    params:
        settings=settings(CONFIG.statistics),
        metrics=CONFIG.metric_names(),
        row=lambda wildcards: METHODS[wildcards.method],
        run=lambda wildcards: axes_of(wildcards, RUN_AXES),
        seed=SEED,
        out=subpath(output[0], parent=True),
    log:
        f"{OUT}/logs/evaluate/{RUN}/sampling_steps~{{sampling_steps}}.log",
    benchmark:
        f"{OUT}/benchmarks/evaluate/{RUN}/sampling_steps~{{sampling_steps}}.tsv"
    threads: 1
    resources:
        mem_mb=later(2000, 16000),
        runtime=later(20, 60),
    conda:
        "../../envs/directcm.yaml"
    message:
        "evaluate: {wildcards.method} seed {wildcards.seed}, {wildcards.sampling_steps} step(s)"
    shell:
        "directcm evaluate --settings {params.settings:q} --metrics {params.metrics} --row {params.row:q}"
        " --steps {wildcards.sampling_steps} --run {params.run:q} --seed {params.seed}"
        " --data {input.data} --noise {input.noise} --samples {input.samples} --features {input.features}"
        " --data-features {input.data_features} --reference {input.reference}"
        " --reference-features {input.reference_features} --out {params.out} --log {log}"


rule card:
    input:
        data=f"{OUT}/data/manifest.json",
        teacher=f"{OUT}/teacher/manifest.json",
        student=f"{OUT}/students/{RUN}/manifest.json",
        metrics=expand(
            f"{OUT}/metrics/students/{RUN}/sampling_steps~{{sampling_steps}}/manifest.json",
            sampling_steps=CONFIG.evaluation.steps,
            allow_missing=True,
        ),
        code=code("card"),
    output:
        f"{OUT}/students/{RUN}/README.md",
    log:
        f"{OUT}/logs/card/{RUN}.log",
    benchmark:
        f"{OUT}/benchmarks/card/{RUN}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    conda:
        "../../envs/directcm.yaml"
    message:
        "card: {wildcards.method} seed {wildcards.seed}"
    shell:
        "directcm card --student {input.student} --teacher {input.teacher} --data {input.data}"
        " --metrics {input.metrics} --out {output} --log {log}"
