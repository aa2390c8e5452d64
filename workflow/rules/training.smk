# All seeds of one adapter on one behavior. Random-dictionary twins train every adapter but the reference, which does not
# touch the dictionary.
rule train:
    input:
        model,
        sae=lambda w: f"{folder(w)}/sae",
        cache=cache,
        contrast=lambda w: [
            f"{RESULTS}/cache/{BASE[w.subject]}/{name}.safetensors"
            for name in plan.contrast_behaviors(w.behavior, w.adapter)
        ],
        given=given_files,
    output:
        directory(f"{RESULTS}/adapters/{{subject}}/{{behavior}}/{{adapter}}"),
    log:
        f"{RESULTS}/logs/train/{{subject}}.{{behavior}}.{{adapter}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{subject}}.{{behavior}}.{{adapter}}.tsv"
    wildcard_constraints:
        subject=one_of(BASE),
        behavior=one_of(CAPTURED),
    conda:
        "../../environment.yml"
    threads: study.threads * study.processes
    resources:
        **{name: n * study.processes for name, n in GPU.items()},
        mem_mb=24000,
        runtime=480,
    params:
        study=STUDY,
        dir=folder,
        start=TOGETHER,
        contrast=lambda w, input: f"--contrast {os.path.dirname(input.cache)}",
        code=lambda w: code(
            "train",
            study.adapters[w.adapter].kind or w.adapter,
            study.adapters[w.adapter].objective,
        ),
        settings=lambda w: settings(
            study.adapters[w.adapter],
            plan.contrast_behaviors(w.behavior, w.adapter),
            study.n_seeds,
            study.seed,
            study.record_seconds,
        ),
    shell:
        "{params.start}isaerft train --study {params.study:q} --subject {wildcards.subject} --behavior {wildcards.behavior}"
        " --adapter {wildcards.adapter} --dir {params.dir} --cache {input.cache} {params.contrast} --out {output} > {log} 2>&1"
