# The effect of training on each behavior that a judge predicts from each explanation.
rule judge:
    input:
        truth,
        lambda w: local_files(study.judges[w.judge].path),
        at.explanations("{subject}", "{source}"),
    output:
        at.judgements("{subject}", "{source}", "{judge}"),
    log:
        at.log("judge", "{subject}", "{source}", "{judge}"),
    benchmark:
        at.benchmark("judge", "{subject}", "{source}", "{judge}")
    group:
        None if ASKING else together("labels")
    localrule: ASKING
    threads: study.threads
    resources:
        mem_mb=memory(4000),
        runtime=minutes(240),
    params:
        study=study_path,
        code=lambda w: code(
            "judge", Part(JUDGES, study.judges[w.judge].kind or w.judge)
        ),
        settings=lambda w: settings(
            replace(study.judges[w.judge], reference=False, tested=True),
            asked(study.judges[w.judge].llm),
            plan.described,
        ),
    shell:
        "isaerft judge --study {params.study:q} --subject {wildcards.subject} --source {wildcards.source}"
        " --judge {wildcards.judge} > {log} 2>&1"
