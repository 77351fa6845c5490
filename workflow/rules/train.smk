rule train:
    input:
        **MODEL,
        targets=targets_of,
        labels=labels_of,
    output:
        f"{OUT}/students/{RUN}/manifest.json",
    log:
        f"{OUT}/logs/train/{RUN}.log",
    benchmark:
        f"{OUT}/benchmarks/train/{RUN}.tsv"
    # Long jobs first, so that none is left alone at the end.
    priority: 10
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        **on_gpu(64000, 60, 720),
        # Processes that train one student together, over all its nodes: `--set-resources train:processes=4`.
        processes=1,
    params:
        code=known(lambda wildcards: code("distill.training", LOADER, f"distill.methods.{wildcards.method}")),
        launch=known(
            lambda wildcards, resources: (
                ""
                if resources.processes == 1
                else f"launch --processes {resources.processes}" f" --nodes {resources.get('nodes', 1)} -- "
            )
        ),
        # Axes of the grid that are settings of training too travel as wildcards.
        settings=settings(CONFIG.train, *RUN_AXES),
        snapshots=known(lambda wildcards: CONFIG.snapshots(spelled_by(wildcards))),
        seed=drawn_seed,
        targets=solutions_of,
        hparams=hparams_of,
        scratch=f"{OUT}/scratch/students/{RUN}",
        tensorboard=f"{OUT}/tensorboard/{RUN}",
    message:
        "train: {wildcards.method}, {wildcards.solver}, N = {wildcards.N}, w = {wildcards.w}, {wildcards.adapter}, {wildcards.steps} steps, seed {wildcards.seed}"
    shell:
        verb(
            "train",
            "snapshots targets? hparams? tensorboard",
            wildcards="method solver N w adapter loss lr batch_size steps pool",
            training_seed="{wildcards.seed}",
            before="{params.launch}",
        )
