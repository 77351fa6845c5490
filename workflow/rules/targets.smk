rule targets:
    input:
        **MODEL,
    output:
        f"{OUT}/targets/{ODE}{{coupling}}/shard~{{shard}}/manifest.json",
    log:
        f"{OUT}/logs/targets/{ODE}{{coupling}}/shard~{{shard}}.log",
    benchmark:
        f"{OUT}/benchmarks/targets/{ODE}{{coupling}}/shard~{{shard}}.tsv"
    # Long jobs first, so that none is left alone at the end.
    priority: 20
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        **on_gpu(48000, 60, 1440),
    params:
        code=code("distill.targets", LOADER),
        settings=solving,
        precision=CONFIG.evaluation.precision,
        start_points=solved_from,
        seed=drawn_seed,
        scratch=f"{OUT}/scratch/targets/{ODE}{{coupling}}/shard~{{shard}}",
    message:
        "targets: {params.start_points}, {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}, shard {wildcards.shard}"
    shell:
        verb("targets", "precision start_points", wildcards="solver N w shard")


rule states:
    input:
        **MODEL,
    output:
        f"{OUT}/targets/{ODE}{{spread}}{paths.STATES}/shard~{{shard}}/manifest.json",
    log:
        f"{OUT}/logs/states/{ODE}{{spread}}/shard~{{shard}}.log",
    benchmark:
        f"{OUT}/benchmarks/states/{ODE}{{spread}}/shard~{{shard}}.tsv"
    priority: 20
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        **on_gpu(48000, 60, 1440),
    params:
        code=code("distill.states", LOADER),
        settings=settings(CONFIG.targets),
        # All that the grid asks for of this ODE, which one solve passes.
        k=lambda wildcards: STEPS[f"{spelled_by(wildcards, Ode).key}{wildcards.spread}{paths.STATES}"],
        precision=CONFIG.evaluation.precision,
        density=lambda wildcards: " ".join(density_of(wildcards.spread.rpartition("~")[2])),
        seed=drawn_seed,
        scratch=f"{OUT}/scratch/states/{ODE}{{spread}}/shard~{{shard}}",
    message:
        "states: after k = {params.k} steps, {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}, shard {wildcards.shard}"
    shell:
        verb("states", "precision density?", wildcards="solver N w shard")


rule endpoints:
    input:
        **MODEL,
    output:
        f"{OUT}/endpoints/{ODE}/shard~{{shard}}/manifest.json",
    log:
        f"{OUT}/logs/endpoints/{ODE}/shard~{{shard}}.log",
    benchmark:
        f"{OUT}/benchmarks/endpoints/{ODE}/shard~{{shard}}.tsv"
    priority: 20
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        **on_gpu(48000, 60, 1440),
    params:
        code=code("evaluation.endpoints", LOADER),
        settings=ERRORS,
        batch_size=CONFIG.targets.batch_size,
        precision=CONFIG.evaluation.precision,
        seed=SEED,
        scratch=f"{OUT}/scratch/endpoints/{ODE}/shard~{{shard}}",
    message:
        "endpoints: {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}, shard {wildcards.shard}"
    shell:
        verb("endpoints", "precision", wildcards="solver N w shard")


rule trajectories:
    input:
        **DEFAULT_MODEL,
    output:
        f"{OUT}/trajectories/manifest.json",
    log:
        f"{OUT}/logs/trajectories.log",
    benchmark:
        f"{OUT}/benchmarks/trajectories.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        **on_gpu(48000, 10, 60),
    params:
        code=code("evaluation.trajectories", LOADER),
        trajectories=CONFIG.figures.trajectories,
        precision=CONFIG.evaluation.precision,
        solver=CONFIG.ode.solver,
        N=CONFIG.ode.N,
        w=number(CONFIG.ode.w),
        seed=SEED,
    message:
        "trajectories: the teacher's ODE from a few start points of training"
    shell:
        verb("trajectories", "precision", count="{params.trajectories}")
