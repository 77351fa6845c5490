rule edit_teacher:
    input:
        **MODEL,
    output:
        f"{OUT}/edits/teacher/{ODE}/manifest.json",
    log:
        f"{OUT}/logs/edit/teacher/{ODE}.log",
    benchmark:
        f"{OUT}/benchmarks/edit/teacher/{ODE}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        **on_gpu(48000, 30, 480),
    params:
        code=code("evaluation.editing", LOADER),
        settings=literal(settings(CONFIG.editing)),
        batch_size=CONFIG.evaluation.batch_size,
        precision=CONFIG.evaluation.precision,
        seed=SEED,
    message:
        "edit: the teacher's ODE, {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}"
    shell:
        verb("edit", "precision", wildcards="solver N w")


rule edit:
    input:
        **MODEL,
        student=f"{OUT}/students/{RUN}/manifest.json",
        reference=f"{OUT}/edits/teacher/{TAUGHT}/manifest.json",
    output:
        f"{OUT}/edits/students/{RUN}/manifest.json",
    log:
        f"{OUT}/logs/edit/students/{RUN}.log",
    benchmark:
        f"{OUT}/benchmarks/edit/students/{RUN}.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        **on_gpu(48000, 20, 120),
    params:
        code=code("evaluation.editing", LOADER),
        settings=literal(settings(CONFIG.editing)),
        batch_size=CONFIG.evaluation.batch_size,
        precision=CONFIG.evaluation.precision,
        seed=SEED,
    message:
        "edit: {wildcards.method} seed {wildcards.seed}"
    shell:
        verb("edit", "precision student reference", wildcards="solver N w")
