rule extractor:
    input:
        data=f"{OUT}/data/manifest.json",
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
        **on_gpu(16000, 30, 60),
    params:
        code=code("evaluation.metrics.clip_tiny"),
        settings=lambda wildcards: settings(getattr(CONFIG.extractors, wildcards.extractor)),
        seed=SEED,
    message:
        "extractor: {wildcards.extractor}"
    shell:
        verb("extractor", name="{wildcards.extractor}")


# Three rules, for a wildcard's value must not hold commas: Snakemake cannot hand such a one on to a cluster's job. Each makes the
# features by all extractors in one pass over the images; without extractors there is nothing to make.
if NEEDED:

    rule features_data:
        input:
            data=f"{OUT}/data/manifest.json",
            noise=f"{OUT}/noise/manifest.json",
            extractor=TRAINED,
        output:
            features_of("data"),
        log:
            f"{OUT}/logs/features/data.log",
        benchmark:
            f"{OUT}/benchmarks/features/data.tsv"
        conda:
            "../../envs/directcm.yaml"
        threads: CONFIG.image_threads
        resources:
            **on_gpu(24000, 20, 120),
        params:
            code=EXTRACTING,
            samples="",
            extractor=if_any("extractor"),
            batch_size=CONFIG.evaluation.batch_size,
        message:
            "features: the data's images"
        shell:
            verb("features", "extractor? samples? batch_size", name=" ".join(NEEDED))

    use rule features_data as features_teacher with:
        input:
            data=f"{OUT}/data/manifest.json",
            noise=lambda wildcards: noise_of(wildcards.who),
            samples=lambda wildcards: draw_of(spelled_by(wildcards, Ode).key, DRAWS[wildcards.who]),
            extractor=TRAINED,
        output:
            features_of(f"{{who}}/{ODE}"),
        log:
            f"{OUT}/logs/features/{{who}}/{ODE}.log",
        benchmark:
            f"{OUT}/benchmarks/features/{{who}}/{ODE}.tsv"
        wildcard_constraints:
            who="|".join(DRAWS),
        params:
            code=EXTRACTING,
            samples=if_any("samples"),
            extractor=if_any("extractor"),
            batch_size=CONFIG.evaluation.batch_size,
        message:
            "features: the {wildcards.who}, {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}"

    use rule features_data as features with:
        input:
            data=f"{OUT}/data/manifest.json",
            noise=f"{OUT}/noise/manifest.json",
            samples=f"{OUT}/samples/{{more}}{RUN}/manifest.json",
            extractor=TRAINED,
        output:
            features_of(f"students/{{more}}{RUN}"),
        log:
            f"{OUT}/logs/features/students/{{more}}{RUN}.log",
        benchmark:
            f"{OUT}/benchmarks/features/students/{{more}}{RUN}.tsv"
        params:
            code=EXTRACTING,
            samples=f"--collection {OUT}/samples/{{more}}{RUN}/manifest.json",
            extractor=if_any("extractor"),
            batch_size=CONFIG.evaluation.batch_size,
        message:
            "features: {wildcards.method} seed {wildcards.seed}"


rule evaluate_teacher:
    input:
        data=f"{OUT}/data/manifest.json",
        noise=f"{OUT}/noise/manifest.json",
        samples=draw_of(ODE),
        features=features_of(f"teacher/{ODE}"),
        data_features=features_of("data"),
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
        code=measuring(CONFIG.metric_names()),
        settings=INTERVALS,
        metrics=CONFIG.metric_names(),
        run=lambda wildcards: axes_of(wildcards, Ode),
        seed=SEED,
    message:
        "evaluate: the teacher, {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}"
    shell:
        verb(
            "evaluate",
            "samples features data_features",
            row="Teacher",
            steps="{wildcards.N}",
        )


rule evaluate_floor:
    input:
        data=f"{OUT}/data/manifest.json",
        noise=f"{OUT}/floor_noise/manifest.json",
        reference_noise=f"{OUT}/noise/manifest.json",
        samples=lambda wildcards: draw_of(spelled_by(wildcards, Ode).key, "floor"),
        features=features_of(f"floor/{ODE}"),
        data_features=features_of("data"),
        reference=draw_of(ODE),
        reference_features=features_of(f"teacher/{ODE}"),
    output:
        f"{OUT}/metrics/floor/{ODE}/manifest.json",
    log:
        f"{OUT}/logs/evaluate/floor/{ODE}.log",
    benchmark:
        f"{OUT}/benchmarks/evaluate/floor/{ODE}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(2000, 16000),
        runtime=later(20, 60),
    params:
        code=measuring(CONFIG.floor_metrics()),
        settings=INTERVALS,
        metrics=CONFIG.floor_metrics(),
        run=lambda wildcards: axes_of(wildcards, Ode),
        seed=SEED,
    message:
        "evaluate: the teacher under another noise, {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}"
    shell:
        verb(
            "evaluate",
            "samples features data_features reference_noise reference reference_features",
            row="'Teacher, other noise'",
            steps="{wildcards.N}",
        )


rule evaluate:
    input:
        data=f"{OUT}/data/manifest.json",
        noise=f"{OUT}/noise/manifest.json",
        samples=f"{OUT}/samples/{{more}}{RUN}/manifest.json",
        features=features_of(f"students/{{more}}{RUN}"),
        data_features=features_of("data"),
        reference=draw_of(TAUGHT),
        reference_features=features_of(f"teacher/{TAUGHT}"),
    output:
        f"{OUT}/metrics/students/{{more}}{RUN}/manifest.json",
    log:
        f"{OUT}/logs/evaluate/students/{{more}}{RUN}.log",
    benchmark:
        f"{OUT}/benchmarks/evaluate/students/{{more}}{RUN}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(2000, 16000),
        runtime=later(20, 60),
    params:
        code=measuring(CONFIG.metric_names()),
        settings=INTERVALS,
        metrics=CONFIG.metric_names(),
        run=known(lambda wildcards: axes_of(wildcards)),
        seed=SEED,
    message:
        "evaluate: {wildcards.method} seed {wildcards.seed}"
    shell:
        verb(
            "evaluate",
            "features data_features reference reference_features",
            collection="{input.samples}",
        )


rule baselines:
    input:
        **MODEL,
        data=f"{OUT}/data/manifest.json",
        noise=f"{OUT}/noise/manifest.json",
        floor_noise=f"{OUT}/floor_noise/manifest.json",
        reference=draw_of(ODE),
        floor=draw_of(ODE, "floor"),
    output:
        f"{OUT}/metrics/baselines/{ODE}/manifest.json",
    log:
        f"{OUT}/logs/evaluate/baselines/{ODE}.log",
    benchmark:
        f"{OUT}/benchmarks/evaluate/baselines/{ODE}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        **on_gpu(48000, 20, 120),
    params:
        code=code("evaluation.baselines", LOADER, *sorted({METRICS[m].module for m in CONFIG.baseline_metrics()})),
        settings=EVALUATION,
        statistics=INTERVALS,
        metrics=CONFIG.baseline_metrics(),
        seed=SEED,
    message:
        "baselines: {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}"
    shell:
        verb("baselines", wildcards="solver N w")


rule error_by_time:
    input:
        **MODEL,
        student=f"{OUT}/students/{RUN}/manifest.json",
        endpoints=lambda wildcards: endpoints_of(paths.both(CONFIG, spelled_by(wildcards, Ode))[0]),
        refined=lambda wildcards: endpoints_of(paths.both(CONFIG, spelled_by(wildcards, Ode))[1]),
    output:
        f"{OUT}/errors/{RUN}/manifest.json",
    log:
        f"{OUT}/logs/error_by_time/{RUN}.log",
    benchmark:
        f"{OUT}/benchmarks/error_by_time/{RUN}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        **on_gpu(48000, 20, 120),
    params:
        code=code("evaluation.error_by_time", LOADER),
        settings=ERRORS,
        batch_size=CONFIG.evaluation.batch_size,
        precision=CONFIG.evaluation.precision,
        seed=SEED,
    message:
        "error_by_time: {wildcards.method} seed {wildcards.seed}, N = {wildcards.N}"
    shell:
        verb("error_by_time", "precision")
