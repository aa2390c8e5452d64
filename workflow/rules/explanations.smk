# Which latents a case-control study speaks of, fixed before anything is asked about them.
rule design:
    input:
        f"{RESULTS}/subjects/{{subject}}/latents.parquet",
        lambda w: expand(
            f"{RESULTS}/changes/{w.subject}/{{behavior}}.parquet",
            behavior=plan.tested_behaviors,
        ),
    output:
        f"{RESULTS}/design/{{subject}}.parquet",
    log:
        f"{RESULTS}/logs/design/{{subject}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/design/{{subject}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        study=STUDY,
        dir=folder,
        changes=lambda w: f"{RESULTS}/changes",
        code=code("design"),
        settings=settings(
            study.design,
            study.primary.measure,
            plan.analysed_adapters(),
            plan.tested_behaviors,
            study.agreement.min_firing_rate,
            study.agreement.n_bins,
            study.seed,
        ),
    shell:
        "isaerft design --study {params.study:q} --subject {wildcards.subject} --dir {params.dir}"
        " --changes {params.changes} --out {output} > {log} 2>&1"


# One source's explanations of a subject's latents, or of the sample.
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
        sample=lambda w: sample(w.subject, [w.source]),
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
        sample=lambda w, input: [f"--sample {path}" for path in input.sample],
        code=lambda w: code(
            "explain", f"SOURCES.{study.sources[w.source].kind or w.source}"
        ),
        settings=lambda w: settings(
            replace(
                study.sources[w.source],
                subjects=[],
                judges=[],
                wrong_share=None,
                design=plan.design_of(w.source),
            ),
            asked(study.sources[w.source].llm),
            study.agreement.min_firing_rate,
        ),
    shell:
        "isaerft explain --study {params.study:q} --subject {wildcards.subject} --source {wildcards.source}"
        " --dir {params.dir} {params.sample} --out {output} > {log} 2>&1"
