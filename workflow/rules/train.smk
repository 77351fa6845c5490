# Axes of the grid that are settings of training too travel as wildcards; the rest of the block is a parameter.
TRAIN_REST = json.dumps(
    {
        k: v
        for k, v in CONFIG.train.model_dump(mode="json").items()
        if k not in RUN_AXES
    },
    sort_keys=True,
)


def method_declares(method, what):
    """What a method file says it needs (TEACHER, TARGETS), read from its source: no torch here."""
    import ast

    path = Path(workflow.basedir) / "src" / "directcm" / "methods" / f"{method}.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            names = [t.id for t in node.targets[0].elts]
            if what in names:
                return ast.literal_eval(node.value)[names.index(what)]
    raise ValueError(f"{path} declares no {what}")


def targets_of(wildcards):
    return (
        shards(TARGETS, CONFIG.targets.shards)
        if method_declares(wildcards.method, "TARGETS")
        else []
    )


rule train:
    input:
        teacher=f"{OUT}/teacher/manifest.json",
        latents=f"{OUT}/latents/manifest.json",
        targets=targets_of,
        code=lambda wildcards: code("training", f"methods.{wildcards.method}"),
    output:
        f"{OUT}/students/{RUN}/manifest.json",
    params:
        settings=TRAIN_REST,
        pool=CONFIG.targets.count,
        seed=SEED,
        targets=lambda wildcards, input: (
            f"--targets {' '.join(input.targets)}" if input.targets else ""
        ),
        out=subpath(output[0], parent=True),
        scratch=f"{OUT}/scratch/students/{RUN}",
        tensorboard=f"{OUT}/tensorboard/{RUN}",
    log:
        f"{OUT}/logs/train/{RUN}.log",
    benchmark:
        f"{OUT}/benchmarks/train/{RUN}.tsv"
    threads: 1
    resources:
        mem_mb=later(4000, 64000),
        runtime=later(60, 720),
        gpu=1,
    conda:
        "../../envs/directcm.yaml"
    message:
        "train: {wildcards.method}, {wildcards.adapter}, N = {wildcards.N}, w = {wildcards.w}, seed {wildcards.seed}"
    shell:
        "directcm train --settings {params.settings:q} --method {wildcards.method}"
        " --solver {wildcards.solver} --N {wildcards.N} --w {wildcards.w} --adapter {wildcards.adapter}"
        " --loss {wildcards.loss} --lr {wildcards.lr} --batch-size {wildcards.batch_size}"
        " --steps {wildcards.steps} --training-seed {wildcards.seed} --pool {params.pool}"
        " --teacher {input.teacher} --latents {input.latents} {params.targets}"
        " --seed {params.seed} --threads {threads} --tensorboard {params.tensorboard}"
        " --scratch {params.scratch} --out {params.out} --log {log}"
