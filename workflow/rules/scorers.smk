# How good the explanations themselves are: contexts held out for scoring, and each scorer's scores of each source.
rule scored_contexts:
    input:
        model,
        at.subject("{subject}").corpus,
        at.subject("{subject}").sae,
        # The gate let the subject pass: nothing in it is read.
        ancient(at.subject("{subject}").card),
    output:
        at.subject("{subject}").scored,
    log:
        at.log("scored_contexts", "{subject}"),
    benchmark:
        at.benchmark("scored_contexts", "{subject}")
    group:
        together("world")
    threads: study.threads
    resources:
        **GPU,
        mem_mb=memory(24000),
        runtime=minutes(120),
    params:
        study=study_path,
        code=code("scored-contexts"),
        settings=lambda w: settings(
            *of_subject(w, "model gguf revision hook_name dtype prepend_bos"),
            *of_subject(w, "center_writing_weights amplified_rows"),
            study.scored_windows,
            plan.scores_steered_texts,
            study.batch_size,
            study.seed,
        ),
    shell:
        "isaerft scored-contexts --study {params.study:q} --subject {wildcards.subject} > {log} 2>&1"


# What an embedding scorer makes of the windows, where several sources are scored on them.
rule embed_windows:
    input:
        at.subject("{subject}").latents,
        at.subject("{subject}").scored,
    output:
        at.windows("{subject}", "{scorer}"),
    log:
        at.log("embed_windows", "{subject}", "{scorer}"),
    benchmark:
        at.benchmark("embed_windows", "{subject}", "{scorer}")
    group:
        together("world")
    threads: study.threads
    resources:
        mem_mb=memory(8000),
        runtime=minutes(240),
    params:
        study=study_path,
        code=lambda w: code(
            "embed-windows",
            Part(SCORERS, study.scorers[w.scorer].kind or w.scorer),
            *(Part(SCORES, score) for score in study.scorers[w.scorer].scores),
        ),
        settings=lambda w: settings(
            replace(study.scorers[w.scorer], sources=[], query=""),
            study.agreement.min_firing_rate,
            study.seed,
        ),
    shell:
        "isaerft embed-windows --study {params.study:q} --subject {wildcards.subject}"
        " --scorer {wildcards.scorer} > {log} 2>&1"


rule score:
    input:
        truth,
        lambda w: local_files(study.scorers[w.scorer].path),
        lambda w: (
            at.windows(w.subject, w.scorer) if plan.embeds_windows(w.scorer) else []
        ),
        at.subject("{subject}").latents,
        at.subject("{subject}").scored,
        at.explanations("{subject}", "{source}"),
    output:
        at.scores("{subject}", "{source}", "{scorer}"),
    log:
        at.log("score", "{subject}", "{source}", "{scorer}"),
    benchmark:
        at.benchmark("score", "{subject}", "{source}", "{scorer}")
    group:
        None if ASKING else together("labels")
    localrule: ASKING
    threads: study.threads
    resources:
        mem_mb=memory(8000),
        runtime=minutes(240),
    params:
        study=study_path,
        code=lambda w: code(
            "score",
            Part(SCORERS, study.scorers[w.scorer].kind or w.scorer),
            *(Part(SCORES, score) for score in study.scorers[w.scorer].scores),
        ),
        settings=lambda w: settings(
            replace(study.scorers[w.scorer], sources=[]),
            asked(study.scorers[w.scorer].llm),
            study.agreement.min_firing_rate,
            study.seed,
        ),
    shell:
        "isaerft score --study {params.study:q} --subject {wildcards.subject} --source {wildcards.source}"
        " --scorer {wildcards.scorer} > {log} 2>&1"
