rule reference:
    input:
        **MODEL,
        noise=lambda wildcards: noise_of(wildcards.draw, REDRAWN.format_map(wildcards)),
    output:
        f"{OUT}/{{draw}}/{ODE}/shard~{{shard}}/manifest.json",
    log:
        f"{OUT}/logs/{{draw}}/{ODE}/shard~{{shard}}.log",
    benchmark:
        f"{OUT}/benchmarks/{{draw}}/{ODE}/shard~{{shard}}.tsv"
    # What students are compared with comes before them: the reference, and the floor, which baselines are fitted on.
    priority: 15
    conda:
        "../../envs/directcm.yaml"
    threads: CONFIG.image_threads
    resources:
        **on_gpu(48000, 60, 1440),
    params:
        code=code("evaluation.sampling", LOADER),
        settings=EVALUATION,
        shards=CONFIG.evaluation.jobs,
        seed=SEED,
        scratch=f"{OUT}/scratch/{{draw}}/{ODE}/shard~{{shard}}",
    message:
        "sample: the teacher ({wildcards.draw}), {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}, shard {wildcards.shard}"
    shell:
        verb("sample", "shards", wildcards="solver N w shard")


rule sample:
    input:
        **MODEL,
        noise=f"{OUT}/{REDRAWN}noise/manifest.json",
        student=f"{OUT}/students/{RUN}/manifest.json",
    output:
        f"{OUT}/samples/{{more}}{RUN}/manifest.json",
    log:
        f"{OUT}/logs/sample/{{more}}{RUN}.log",
    benchmark:
        f"{OUT}/benchmarks/sample/{{more}}{RUN}.tsv"
    wildcard_constraints:
        more=f"|{paths.MORE}",
    conda:
        "../../envs/directcm.yaml"
    threads: CONFIG.image_threads
    resources:
        **on_gpu(48000, 30, 480),
    params:
        code=code("evaluation.sampling", LOADER),
        settings=EVALUATION,
        sets=known(
            lambda wildcards: [f"{step}:{steps}" for step, steps in SETS[spelled_by(wildcards)][bool(wildcards.more)]]
        ),
        seed=SEED,
        scratch=f"{OUT}/scratch/samples/{{more}}{RUN}",
    message:
        "sample: {wildcards.method} seed {wildcards.seed}, step:sampling steps {params.sets}"
    shell:
        verb("sample", "student sets", wildcards="solver N w")


rule variants:
    input:
        **MODEL,
        noise=f"{OUT}/{REDRAWN}noise/manifest.json",
        student=f"{OUT}/students/{RUN}/manifest.json",
        relays=relays_of,
        floor_noise=lambda wildcards: fitted_on(wildcards)[:1],
        floor=lambda wildcards: fitted_on(wildcards)[1:],
    output:
        f"{OUT}/samples/{paths.VARIANTS}{RUN}/manifest.json",
    log:
        f"{OUT}/logs/variants/{RUN}.log",
    benchmark:
        f"{OUT}/benchmarks/variants/{RUN}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: CONFIG.image_threads
    resources:
        **on_gpu(48000, 60, 1440),
    params:
        code=code("evaluation.variants", LOADER),
        settings=EVALUATION,
        sets=known(lambda wildcards: [one.name for one in CONFIG.variants(spelled_by(wildcards))]),
        relays=if_any("relays"),
        floor_noise=if_any("floor_noise"),
        floor=if_any("floor"),
        seed=SEED,
        scratch=f"{OUT}/scratch/variants/{RUN}",
    message:
        "variants: {wildcards.method} seed {wildcards.seed}, sets {params.sets}"
    shell:
        verb("variants", "sets relays? floor_noise? floor?", wildcards="solver N w")


rule untrained:
    input:
        **MODEL,
        noise=f"{OUT}/{REDRAWN}noise/manifest.json",
    output:
        f"{OUT}/untrained/{ODE}/manifest.json",
    log:
        f"{OUT}/logs/untrained/{ODE}.log",
    benchmark:
        f"{OUT}/benchmarks/untrained/{ODE}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        **on_gpu(48000, 20, 120),
    params:
        code=code("evaluation.untrained", LOADER),
        settings=EVALUATION,
        seed=SEED,
        scratch=f"{OUT}/scratch/untrained/{ODE}",
    message:
        "untrained: what training starts from, {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}"
    shell:
        verb("untrained", wildcards="solver N w")


rule search:
    input:
        **MODEL,
        noise=f"{OUT}/{REDRAWN}noise/manifest.json",
        search_noise=f"{OUT}/{REDRAWN}search_noise/manifest.json",
        student=f"{OUT}/students/{RUN}/manifest.json",
        reference=sought_in,
        extractor=lambda wildcards: trained(sought().extractor),
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
        **on_gpu(48000, 60, 1440),
    params:
        code=known(lambda wildcards: code("evaluation.search", LOADER, sought().module)),
        settings=lambda wildcards: settings(CONFIG.search.model_copy(update={"metric": sought().name})),
        statistics=json.dumps({"permutations": CONFIG.statistics.permutations}),
        evaluation=EVALUATION,
        extractor=if_any("extractor"),
        seed=SEED,
        scratch=f"{OUT}/scratch/search/{RUN}",
    message:
        "search: the sampling times of {wildcards.method} seed {wildcards.seed}"
    shell:
        verb("search", "extractor?")
