rule convergence:
    output:
        f"{OUT}/convergence/manifest.json",
    log:
        f"{OUT}/logs/convergence.log",
    benchmark:
        f"{OUT}/benchmarks/convergence.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        code=code("evaluation.convergence"),
        settings=lambda wildcards: settings(CONFIG.convergence),
        seed=SEED,
    message:
        "convergence: what theory predicts as N grows, on exact teachers"
    shell:
        verb("convergence")
