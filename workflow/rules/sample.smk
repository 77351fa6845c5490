rule reference:
    input:
        teacher=f"{OUT}/teacher/manifest.json",
        latents=f"{OUT}/latents/manifest.json",
        noise=lambda wildcards: noise_of(wildcards.draw),
    output:
        f"{OUT}/{{draw}}/{ODE}/shard~{{shard}}/manifest.json",
    log:
        f"{OUT}/logs/{{draw}}/{ODE}/shard~{{shard}}.log",
    benchmark:
        f"{OUT}/benchmarks/{{draw}}/{ODE}/shard~{{shard}}.tsv"
    # What students are compared with comes before them; the floor, which no comparison of them waits for, after everything.
    priority: lambda wildcards: 15 if wildcards.draw == "reference" else -1
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(4000, 48000),
        runtime=later(60, 1440),
        gpu=1,
    params:
        code=code("evaluation.sampling", LOADER),
        settings=evaluation(),
        shards=CONFIG.evaluation.jobs,
        seed=SEED,
        scratch=f"{OUT}/scratch/{{draw}}/{ODE}/shard~{{shard}}",
    message:
        "sample: the teacher ({wildcards.draw}), {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}, shard {wildcards.shard}"
    shell:
        verb("sample", "shards", wildcards="solver N w shard")


rule sample:
    input:
        teacher=f"{OUT}/teacher/manifest.json",
        latents=f"{OUT}/latents/manifest.json",
        noise=f"{OUT}/noise/manifest.json",
        student=f"{OUT}/students/{RUN}/manifest.json",
    output:
        f"{OUT}/samples/{{more}}{RUN}/manifest.json",
    log:
        f"{OUT}/logs/sample/{{more}}{RUN}.log",
    benchmark:
        f"{OUT}/benchmarks/sample/{{more}}{RUN}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(4000, 48000),
        runtime=later(30, 480),
        gpu=1,
    params:
        code=code("evaluation.sampling", LOADER),
        settings=evaluation(),
        sets=known(
            lambda wildcards: [
                f"{step}:{steps}"
                for step, steps in SETS[spelled_by(wildcards)][bool(wildcards.more)]
            ]
        ),
        seed=SEED,
        scratch=f"{OUT}/scratch/samples/{{more}}{RUN}",
    message:
        "sample: {wildcards.method} seed {wildcards.seed}, step:sampling steps {params.sets}"
    shell:
        verb("sample", "student sets", wildcards="solver N w")


rule search:
    input:
        teacher=f"{OUT}/teacher/manifest.json",
        latents=f"{OUT}/latents/manifest.json",
        noise=f"{OUT}/noise/manifest.json",
        search_noise=f"{OUT}/search_noise/manifest.json",
        student=f"{OUT}/students/{RUN}/manifest.json",
        reference=sought,
        extractor=sought_by,
    output:
        f"{OUT}/search/{RUN}/manifest.json",
    log:
        f"{OUT}/logs/search/{RUN}.log",
    benchmark:
        f"{OUT}/benchmarks/search/{RUN}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(4000, 48000),
        runtime=later(60, 1440),
        gpu=1,
    params:
        code=known(
            lambda wildcards: code(
                "evaluation.search",
                LOADER,
                METRICS[CONFIG.search_metric()].module,
            )
        ),
        settings=lambda wildcards: settings(
            CONFIG.search.model_copy(update={"metric": CONFIG.search_metric()})
        ),
        statistics=json.dumps({"permutations": CONFIG.statistics.permutations}),
        evaluation=evaluation(),
        extractor=if_any("extractor"),
        seed=SEED,
        scratch=f"{OUT}/scratch/search/{RUN}",
    message:
        "search: the sampling times of {wildcards.method} seed {wildcards.seed}"
    shell:
        verb("search", "extractor?")
