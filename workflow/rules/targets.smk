rule targets:
    input:
        teacher=f"{OUT}/teacher/manifest.json",
        latents=f"{OUT}/latents/manifest.json",
        code=code("targets"),
    output:
        TARGETS,
    log:
        f"{OUT}/logs/targets/{ODE}/shard~{{shard}}.log",
    benchmark:
        f"{OUT}/benchmarks/targets/{ODE}/shard~{{shard}}.tsv"
    # Long jobs first, so that none is left alone at the end.
    priority: 20
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(4000, 48000),
        runtime=later(60, 1440),
        gpu=1,
    params:
        settings=settings(CONFIG.targets),
        precision=CONFIG.evaluation.precision,
        seed=SEED,
        out=subpath(output[0], parent=True),
        scratch=f"{OUT}/scratch/targets/{ODE}/shard~{{shard}}",
    message:
        "targets: {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}, shard {wildcards.shard}"
    shell:
        "directcm targets --settings {params.settings:q} --precision {params.precision}"
        " --solver {wildcards.solver} --N {wildcards.N} --w {wildcards.w} --shard {wildcards.shard}"
        " --teacher {input.teacher} --latents {input.latents} --seed {params.seed} --threads {threads}"
        " --scratch {params.scratch} --out {params.out} --log {log}"
