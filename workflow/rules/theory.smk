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


rule fixed_points:
    output:
        f"{OUT}/fixed_points/manifest.json",
    log:
        f"{OUT}/logs/fixed_points.log",
    benchmark:
        f"{OUT}/benchmarks/fixed_points.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        code=code("evaluation.fixed_points"),
        settings=lambda wildcards: settings(CONFIG.fixed_points),
        seed=SEED,
    message:
        "fixed_points: what CM, Direct CM and the targets between them converge to, in closed form"
    shell:
        verb("fixed_points")
