rule extractor:
    input:
        data=f"{OUT}/data/manifest.json",
        code=code("metrics.clip_tiny"),
    output:
        f"{OUT}/extractors/{{extractor}}/manifest.json",
    log:
        f"{OUT}/logs/extractor/{{extractor}}.log",
    benchmark:
        f"{OUT}/benchmarks/extractor/{{extractor}}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(4000, 16000),
        runtime=later(30, 60),
        gpu=1,
    params:
        settings=lambda wildcards: settings(
            getattr(CONFIG.extractors, wildcards.extractor)
        ),
        seed=SEED,
        out=subpath(output[0], parent=True),
    message:
        "extractor: {wildcards.extractor}"
    shell:
        "directcm extractor --name {wildcards.extractor} --settings {params.settings:q} --data {input.data}"
        " --seed {params.seed} --threads {threads} --out {params.out} --log {log}"


rule features:
    input:
        data=f"{OUT}/data/manifest.json",
        noise=f"{OUT}/noise/manifest.json",
        samples=samples_of,
        extractor=trained,
        code=code("metrics.features"),
    output:
        f"{OUT}/features/{{extractor}}/{{set}}/manifest.json",
    log:
        f"{OUT}/logs/features/{{extractor}}/{{set}}.log",
    benchmark:
        f"{OUT}/benchmarks/features/{{extractor}}/{{set}}.tsv"
    wildcard_constraints:
        set="data|(teacher|students)/.+",
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(4000, 24000),
        runtime=later(20, 120),
        gpu=1,
    params:
        samples=lambda wildcards, input: (
            f"--samples {' '.join(input.samples)}" if input.samples else ""
        ),
        extractor=lambda wildcards, input: (
            f"--extractor {input.extractor}" if input.extractor else ""
        ),
        batch_size=CONFIG.evaluation.batch_size,
        out=subpath(output[0], parent=True),
    message:
        "features: {wildcards.extractor} of {wildcards.set}"
    shell:
        "directcm features --name {wildcards.extractor} {params.extractor} {params.samples}"
        " --data {input.data} --noise {input.noise} --batch-size {params.batch_size} --threads {threads}"
        " --out {params.out} --log {log}"


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
    log:
        f"{OUT}/logs/evaluate/teacher/{ODE}.log",
    benchmark:
        f"{OUT}/benchmarks/evaluate/teacher/{ODE}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(2000, 16000),
        runtime=later(20, 60),
    params:
        settings=settings(CONFIG.statistics),
        metrics=CONFIG.metric_names(),
        run=lambda wildcards: axes_of(wildcards, ODE_AXES),
        seed=SEED,
        out=subpath(output[0], parent=True),
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
    log:
        f"{OUT}/logs/evaluate/{RUN}/sampling_steps~{{sampling_steps}}.log",
    benchmark:
        f"{OUT}/benchmarks/evaluate/{RUN}/sampling_steps~{{sampling_steps}}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(2000, 16000),
        runtime=later(20, 60),
    params:
        settings=settings(CONFIG.statistics),
        metrics=CONFIG.metric_names(),
        row=lambda wildcards: METHODS[wildcards.method],
        run=lambda wildcards: axes_of(wildcards, RUN_AXES),
        seed=SEED,
        out=subpath(output[0], parent=True),
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
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "card: {wildcards.method} seed {wildcards.seed}"
    shell:
        "directcm card --student {input.student} --teacher {input.teacher} --data {input.data}"
        " --metrics {input.metrics} --out {output} --log {log}"
