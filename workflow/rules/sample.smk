rule reference:
    input:
        teacher=f"{OUT}/teacher/manifest.json",
        latents=f"{OUT}/latents/manifest.json",
        noise=f"{OUT}/noise/manifest.json",
        code=code("sampling"),
    output:
        REFERENCE,
    log:
        f"{OUT}/logs/reference/{ODE}/shard~{{shard}}.log",
    benchmark:
        f"{OUT}/benchmarks/reference/{ODE}/shard~{{shard}}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(4000, 48000),
        runtime=later(60, 1440),
        gpu=1,
    params:
        settings=evaluation(),
        shards=CONFIG.evaluation.shards,
        seed=SEED,
        out=subpath(output[0], parent=True),
        scratch=f"{OUT}/scratch/reference/{ODE}/shard~{{shard}}",
    message:
        "sample: the teacher, {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}, shard {wildcards.shard}"
    shell:
        "directcm sample --settings {params.settings:q} --solver {wildcards.solver} --N {wildcards.N}"
        " --w {wildcards.w} --shard {wildcards.shard} --shards {params.shards}"
        " --teacher {input.teacher} --latents {input.latents} --noise {input.noise}"
        " --seed {params.seed} --threads {threads}"
        " --scratch {params.scratch} --out {params.out} --log {log}"


rule sample:
    input:
        teacher=f"{OUT}/teacher/manifest.json",
        latents=f"{OUT}/latents/manifest.json",
        noise=f"{OUT}/noise/manifest.json",
        student=f"{OUT}/students/{RUN}/manifest.json",
        code=code("sampling"),
    output:
        f"{OUT}/samples/{RUN}/sampling_steps~{{sampling_steps}}/manifest.json",
    log:
        f"{OUT}/logs/sample/{RUN}/sampling_steps~{{sampling_steps}}.log",
    benchmark:
        f"{OUT}/benchmarks/sample/{RUN}/sampling_steps~{{sampling_steps}}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(4000, 48000),
        runtime=later(30, 480),
        gpu=1,
    params:
        settings=evaluation(),
        seed=SEED,
        out=subpath(output[0], parent=True),
        scratch=f"{OUT}/scratch/samples/{RUN}/sampling_steps~{{sampling_steps}}",
    message:
        "sample: {wildcards.method} seed {wildcards.seed}, {wildcards.sampling_steps} step(s)"
    shell:
        "directcm sample --settings {params.settings:q} --solver {wildcards.solver} --N {wildcards.N}"
        " --w {wildcards.w} --student {input.student} --steps {wildcards.sampling_steps}"
        " --teacher {input.teacher} --latents {input.latents} --noise {input.noise}"
        " --seed {params.seed} --threads {threads}"
        " --scratch {params.scratch} --out {params.out} --log {log}"
