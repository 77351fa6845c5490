rule data:
    output:
        f"{OUT}/data/manifest.json",
    log:
        f"{OUT}/logs/data.log",
    benchmark:
        f"{OUT}/benchmarks/data.tsv"
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(2000, 8000),
        runtime=later(10, 120),
        # No parameter, for another metric does not make the data stale: how many images are asked for.
        least=CONFIG.least(),
    params:
        code=code("datasets", *datasets.modules(CONFIG.data)),
        settings=literal(settings(CONFIG.data)),
        # What lies outside: an edited caption, another picture.
        content=known(lambda wildcards: datasets.content(CONFIG.data, Path(OUT, "data"))),
        classes="--classes" if CONFIG.teacher.told_classes else "",
        seed=SEED,
    message:
        "data: images and captions"
    shell:
        verb("data", "classes?", least="{resources.least}")


rule noise:
    input:
        data=f"{OUT}/data/manifest.json",
        latents=f"{OUT}/{{redrawn}}latents/manifest.json",
    output:
        f"{OUT}/{{redrawn}}{{noise}}/manifest.json",
    log:
        f"{OUT}/logs/{{redrawn}}{{noise}}.log",
    benchmark:
        f"{OUT}/benchmarks/{{redrawn}}{{noise}}.tsv"
    wildcard_constraints:
        noise="noise|floor_noise|search_noise",
    conda:
        "../../envs/directcm.yaml"
    threads: 1
    resources:
        mem_mb=later(2000, 8000),
        runtime=later(10, 30),
    params:
        code=code("distill.noise"),
        samples=lambda wildcards: (
            CONFIG.search.samples if wildcards.noise == "search_noise" else CONFIG.evaluation.samples
        ),
        purpose=lambda wildcards: (
            "evaluation" if wildcards.noise == "noise" else wildcards.noise.removesuffix("_noise")
        ),
        seed=SEED,
    message:
        "noise: the {params.purpose}'s noise and prompts"
    shell:
        verb("noise", "purpose")
