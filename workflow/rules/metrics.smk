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
# features by all extractors that `metrics` needs in one pass over the images, and in another, of the scope "paper", by those that
# further metrics need besides (`paths.passes`); without extractors there is nothing to make.
if paths.FEATURES in PASSES:

    EXTRACTED = PASSES[paths.FEATURES]

    rule features_data:
        input:
            data=f"{OUT}/data/manifest.json",
            noise=f"{OUT}/noise/manifest.json",
            extractor=trained(*EXTRACTED),
        output:
            features_of("data", EXTRACTED),
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
            code=extracting(EXTRACTED),
            name=EXTRACTED,
            samples="",
            extractor=if_any("extractor"),
            batch_size=CONFIG.evaluation.batch_size,
        message:
            "features: the data's images"
        shell:
            verb("features", "extractor? samples? batch_size")

    use rule features_data as features_teacher with:
        input:
            data=f"{OUT}/data/manifest.json",
            noise=lambda wildcards: noise_of(wildcards.who),
            samples=lambda wildcards: draw_of(spelled_by(wildcards, Ode).key, DRAWS[wildcards.who]),
            extractor=trained(*EXTRACTED),
        output:
            features_of(f"{{who}}/{ODE}", EXTRACTED),
        log:
            f"{OUT}/logs/features/{{who}}/{ODE}.log",
        benchmark:
            f"{OUT}/benchmarks/features/{{who}}/{ODE}.tsv"
        wildcard_constraints:
            who="|".join(DRAWS),
        params:
            code=extracting(EXTRACTED),
            name=EXTRACTED,
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
            extractor=trained(*EXTRACTED),
        output:
            features_of(f"students/{{more}}{RUN}", EXTRACTED),
        log:
            f"{OUT}/logs/features/students/{{more}}{RUN}.log",
        benchmark:
            f"{OUT}/benchmarks/features/students/{{more}}{RUN}.tsv"
        params:
            code=extracting(EXTRACTED),
            name=EXTRACTED,
            samples=f"--collection {OUT}/samples/{{more}}{RUN}/manifest.json",
            extractor=if_any("extractor"),
            batch_size=CONFIG.evaluation.batch_size,
        message:
            "features: {wildcards.method} seed {wildcards.seed}"


if paths.FEATURES_FURTHER in PASSES:

    BESIDES = PASSES[paths.FEATURES_FURTHER]

    use rule features_data as features_data_further with:
        input:
            data=f"{OUT}/data/manifest.json",
            noise=f"{OUT}/noise/manifest.json",
            extractor=trained(*BESIDES),
        output:
            features_of("data", BESIDES),
        log:
            f"{OUT}/logs/features_further/data.log",
        benchmark:
            f"{OUT}/benchmarks/features_further/data.tsv"
        params:
            code=extracting(BESIDES),
            name=BESIDES,
            samples="",
            extractor=if_any("extractor"),
            batch_size=CONFIG.evaluation.batch_size,
        message:
            "features: the data's images, for further metrics"

    use rule features_teacher as features_teacher_further with:
        input:
            data=f"{OUT}/data/manifest.json",
            noise=lambda wildcards: noise_of(wildcards.who),
            samples=lambda wildcards: draw_of(spelled_by(wildcards, Ode).key, DRAWS[wildcards.who]),
            extractor=trained(*BESIDES),
        output:
            features_of(f"{{who}}/{ODE}", BESIDES),
        log:
            f"{OUT}/logs/features_further/{{who}}/{ODE}.log",
        benchmark:
            f"{OUT}/benchmarks/features_further/{{who}}/{ODE}.tsv"
        wildcard_constraints:
            who="|".join(DRAWS),
        params:
            code=extracting(BESIDES),
            name=BESIDES,
            samples=if_any("samples"),
            extractor=if_any("extractor"),
            batch_size=CONFIG.evaluation.batch_size,
        message:
            "features: the {wildcards.who}, {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}, for further metrics"

    use rule features as features_further with:
        input:
            data=f"{OUT}/data/manifest.json",
            noise=f"{OUT}/noise/manifest.json",
            samples=f"{OUT}/samples/{RUN}/manifest.json",
            extractor=trained(*BESIDES),
        output:
            features_of(f"students/{RUN}", BESIDES),
        log:
            f"{OUT}/logs/features_further/students/{RUN}.log",
        benchmark:
            f"{OUT}/benchmarks/features_further/students/{RUN}.tsv"
        params:
            code=extracting(BESIDES),
            name=BESIDES,
            samples=f"--collection {OUT}/samples/{RUN}/manifest.json",
            extractor=if_any("extractor"),
            batch_size=CONFIG.evaluation.batch_size,
        message:
            "features: {wildcards.method} seed {wildcards.seed}, for further metrics"


rule evaluate_teacher:
    input:
        **another_noise(CONFIG.metric_names()),
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
        other=other_of,
    message:
        "evaluate: the teacher, {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}"
    shell:
        verb(
            "evaluate",
            "samples features data_features other?",
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
        **another_noise(CONFIG.metric_names(), TAUGHT),
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
        other=other_of,
    message:
        "evaluate: {wildcards.method} seed {wildcards.seed}"
    shell:
        verb(
            "evaluate",
            "features data_features reference reference_features other?",
            collection="{input.samples}",
        )


# The metrics of the scope "paper" alone, of the same samples: artefacts of their own, so that the main comparison's stay as they are.
use rule evaluate_teacher as evaluate_teacher_further with:
    input:
        **another_noise(FURTHER),
        data=f"{OUT}/data/manifest.json",
        noise=f"{OUT}/noise/manifest.json",
        samples=draw_of(ODE),
        features=features_of(f"teacher/{ODE}", FURTHER_NEEDED),
        data_features=features_of("data", FURTHER_NEEDED),
    output:
        f"{OUT}/metrics/{paths.FURTHER}teacher/{ODE}/manifest.json",
    log:
        f"{OUT}/logs/evaluate/{paths.FURTHER}teacher/{ODE}.log",
    benchmark:
        f"{OUT}/benchmarks/evaluate/{paths.FURTHER}teacher/{ODE}.tsv"
    params:
        code=measuring(FURTHER),
        settings=INTERVALS,
        metrics=FURTHER,
        run=lambda wildcards: axes_of(wildcards, Ode),
        seed=SEED,
        other=other_of,
    message:
        "evaluate: the teacher, further metrics, {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}"


use rule evaluate_floor as evaluate_floor_further with:
    input:
        data=f"{OUT}/data/manifest.json",
        noise=f"{OUT}/floor_noise/manifest.json",
        reference_noise=f"{OUT}/noise/manifest.json",
        samples=lambda wildcards: draw_of(spelled_by(wildcards, Ode).key, "floor"),
        features=features_of(f"floor/{ODE}", FURTHER_NEEDED),
        data_features=features_of("data", FURTHER_NEEDED),
        reference=draw_of(ODE),
        reference_features=features_of(f"teacher/{ODE}", FURTHER_NEEDED),
    output:
        f"{OUT}/metrics/{paths.FURTHER}floor/{ODE}/manifest.json",
    log:
        f"{OUT}/logs/evaluate/{paths.FURTHER}floor/{ODE}.log",
    benchmark:
        f"{OUT}/benchmarks/evaluate/{paths.FURTHER}floor/{ODE}.tsv"
    params:
        code=measuring(CONFIG.floor_metrics(FURTHER)),
        settings=INTERVALS,
        metrics=CONFIG.floor_metrics(FURTHER),
        run=lambda wildcards: axes_of(wildcards, Ode),
        seed=SEED,
    message:
        "evaluate: the teacher under another noise, further metrics, {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}"


use rule evaluate as evaluate_further with:
    input:
        **another_noise(FURTHER, TAUGHT),
        data=f"{OUT}/data/manifest.json",
        noise=f"{OUT}/noise/manifest.json",
        samples=f"{OUT}/samples/{RUN}/manifest.json",
        features=features_of(f"students/{RUN}", FURTHER_NEEDED),
        data_features=features_of("data", FURTHER_NEEDED),
        reference=draw_of(TAUGHT),
        reference_features=features_of(f"teacher/{TAUGHT}", FURTHER_NEEDED),
    output:
        f"{OUT}/metrics/{paths.FURTHER}students/{RUN}/manifest.json",
    log:
        f"{OUT}/logs/evaluate/{paths.FURTHER}students/{RUN}.log",
    benchmark:
        f"{OUT}/benchmarks/evaluate/{paths.FURTHER}students/{RUN}.tsv"
    params:
        code=measuring(FURTHER),
        settings=INTERVALS,
        metrics=FURTHER,
        run=known(lambda wildcards: axes_of(wildcards)),
        seed=SEED,
        other=other_of,
    message:
        "evaluate: {wildcards.method} seed {wildcards.seed}, further metrics"


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
        f"{OUT}/logs/baselines/{ODE}.log",
    benchmark:
        f"{OUT}/benchmarks/baselines/{ODE}.tsv"
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
