# Which latents a case-control study asks about, fixed before anything is asked.
rule design:
    input:
        at.subject("{subject}").latents,
        [at.changes("{subject}", behavior) for behavior in plan.tested_behaviors],
    output:
        at.design("{subject}"),
    log:
        at.log("design", "{subject}"),
    benchmark:
        at.benchmark("design", "{subject}")
    resources:
        mem_mb=memory(8000),
        runtime=minutes(60),
    params:
        study=study_path,
        code=code("design"),
        settings=lambda w: settings(
            study.design,
            study.primary.measure,
            plan.analyzed_adapters(w.subject),
            plan.tested_behaviors,
            study.agreement.min_firing_rate,
            study.agreement.n_bins,
            study.seed,
        ),
    shell:
        "isaerft design --study {params.study:q} --subject {wildcards.subject} > {log} 2>&1"


# One source's explanations of a subject's latents, or of the sample.
rule explain:
    input:
        truth,
        lambda w: local_files(study.sources[w.source].path),
        lambda w: local_files(study.sources[w.source].features),
        at.subject("{subject}").sae,
        at.subject("{subject}").latents,
        at.subject("{subject}").contexts,
        at.subject("{subject}").logits,
        at.subject("{subject}").card,
        lambda w: sample(w.subject, [w.source]),
    output:
        at.explanations("{subject}", "{source}"),
    log:
        at.log("explain", "{subject}", "{source}"),
    benchmark:
        at.benchmark("explain", "{subject}", "{source}")
    group:
        None if ASKING else together("labels")
    localrule: ASKING
    resources:
        mem_mb=memory(4000),
        runtime=minutes(240),
    params:
        study=study_path,
        code=lambda w: code(
            "explain", Part(SOURCES, study.sources[w.source].kind or w.source)
        ),
        settings=lambda w: settings(
            replace(
                study.sources[w.source],
                subjects=[],
                judges=[],
                wrong_share=None,
                key=None,
                design=plan.design_of(w.source),
            ),
            asked(study.sources[w.source].llm),
            study.agreement.min_firing_rate,
        ),
    shell:
        "isaerft explain --study {params.study:q} --subject {wildcards.subject} --source {wildcards.source} > {log} 2>&1"
