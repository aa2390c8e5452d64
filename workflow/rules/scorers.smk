# How good the explanations themselves are: the evidence kept for that, and each scorer's scores of each source.
rule scored_contexts:
    input:
        model,
        f"{RESULTS}/subjects/{{subject}}/corpus.safetensors",
        f"{RESULTS}/subjects/{{subject}}/sae",
        # The gate let the subject pass: nothing in it is read.
        ancient(f"{RESULTS}/subjects/{{subject}}/subject.json"),
    output:
        f"{RESULTS}/subjects/{{subject}}/scored_contexts.parquet",
    log:
        f"{RESULTS}/logs/scored_contexts/{{subject}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/scored_contexts/{{subject}}.tsv"
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        **GPU,
        mem_mb=24000,
        runtime=120,
    params:
        study=STUDY,
        dir=folder,
        code=code("scored-contexts"),
        settings=lambda w: settings(
            *of_subject(w, "model revision hook_name dtype prepend_bos"),
            *of_subject(w, "center_writing_weights amplified_rows"),
            study.scored_windows,
            study.batch_size,
            study.seed,
        ),
    shell:
        "isaerft scored-contexts --study {params.study:q} --subject {wildcards.subject} --dir {params.dir} --out {output}"
        " > {log} 2>&1"


rule score:
    input:
        f"{RESULTS}/subjects/{{subject}}/latents.parquet",
        f"{RESULTS}/subjects/{{subject}}/scored_contexts.parquet",
        explanations=f"{RESULTS}/explanations/{{subject}}/{{source}}.parquet",
    output:
        f"{RESULTS}/scores/{{subject}}/{{source}}/{{scorer}}.parquet",
    log:
        f"{RESULTS}/logs/score/{{subject}}.{{source}}.{{scorer}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score/{{subject}}.{{source}}.{{scorer}}.tsv"
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        study=STUDY,
        dir=folder,
        code=lambda w: code(
            "score", f"SCORERS.{study.scorers[w.scorer].kind or w.scorer}"
        ),
        settings=lambda w: settings(
            replace(study.scorers[w.scorer], sources=[]),
            asked(study.scorers[w.scorer].llm),
            study.agreement.min_firing_rate,
            study.seed,
        ),
    shell:
        "isaerft score --study {params.study:q} --subject {wildcards.subject} --source {wildcards.source}"
        " --scorer {wildcards.scorer} --dir {params.dir} --explanations {input.explanations} --out {output} > {log} 2>&1"
