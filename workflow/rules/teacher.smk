rule teacher:
    input:
        data=f"{OUT}/data/manifest.json",
    output:
        f"{OUT}/{{redrawn}}teacher/manifest.json",
    log:
        f"{OUT}/logs/{{redrawn}}teacher.log",
    benchmark:
        f"{OUT}/benchmarks/{{redrawn}}teacher.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 2
    resources:
        mem_mb=later(6000, 32000),
        runtime=later(30, 60),
        # A teacher that is not trained is only looked at or written down.
        gpu=int(TEACHERS[CONFIG.teacher.kind].learns),
    params:
        code=code(f"diffusion.teachers.{CONFIG.teacher.kind}"),
        kind=CONFIG.teacher.kind,
        settings=literal(settings(getattr(CONFIG.teacher, CONFIG.teacher.kind))),
        process=literal(settings(CONFIG.process)),
        content=known(lambda wildcards: pinned()),
        seed=drawn_seed,
        scratch=f"{OUT}/scratch/{{redrawn}}teacher",
    message:
        "teacher: {params.kind}"
    shell:
        verb("teacher")


rule encode:
    input:
        data=f"{OUT}/data/manifest.json",
        teacher=f"{OUT}/{{redrawn}}teacher/manifest.json",
    output:
        f"{OUT}/{{redrawn}}latents/manifest.json",
    log:
        f"{OUT}/logs/{{redrawn}}encode.log",
    benchmark:
        f"{OUT}/benchmarks/{{redrawn}}encode.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: CONFIG.image_threads
    resources:
        **on_gpu(48000, 20, 240),
    params:
        code=code("distill.encode", LOADER),
        settings=literal(settings(CONFIG.encode)),
        precision=CONFIG.evaluation.precision,
        seed=drawn_seed,
        scratch=f"{OUT}/scratch/{{redrawn}}encode",
    message:
        "encode: latents of the images, embeddings of the captions"
    shell:
        verb("encode", "precision")
