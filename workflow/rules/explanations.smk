# One source's explanations of a subject's latents.
rule explain:
    input:
        truth,
        lambda w: local_files(study.sources[w.source].path),
        multiext(
            f"{RESULTS}/subjects/{{subject}}/",
            "latents.parquet",
            "contexts.parquet",
            "subject.json",
        ),
    output:
        f"{RESULTS}/explanations/{{subject}}/{{source}}.parquet",
    log:
        f"{RESULTS}/logs/explain/{{subject}}.{{source}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/explain/{{subject}}.{{source}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        study=STUDY,
        dir=folder,
        code=lambda w: code("explain", study.sources[w.source].kind or w.source),
        settings=lambda w: settings(
            replace(study.sources[w.source], subjects=[], judges=[], wrong_share=None),
            study.agreement.min_firing_rate,
        ),
    shell:
        "isaerft explain --study {params.study:q} --subject {wildcards.subject} --source {wildcards.source}"
        " --dir {params.dir} --out {output} > {log} 2>&1"
