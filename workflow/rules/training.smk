# What is erased from the residual stream before a twin of a behavior is trained.
rule erase:
    input:
        cache,
        compared_caches,
    output:
        at.erasure("{subject}", "{behavior}"),
        at.erasure_facts("{subject}", "{behavior}"),
    log:
        at.log("erase", "{subject}", "{behavior}"),
    benchmark:
        at.benchmark("erase", "{subject}", "{behavior}")
    wildcard_constraints:
        subject=one_of(study.subjects),
        behavior=one_of(plan.erased_behaviors) or "(?!)",
    group:
        together("training")
    threads: study.threads
    resources:
        mem_mb=memory(24000),
        runtime=minutes(120),
    params:
        study=study_path,
        code=code("erase"),
        settings=lambda w: settings(
            plan.erased_behaviors[w.behavior].control,
            plan.contrasts_of(w.behavior),
            plan.n_seeds_of(study.primary.adapter),
            study.seed,
        ),
    shell:
        "isaerft erase --study {params.study:q} --subject {wildcards.subject} --behavior {wildcards.behavior} > {log} 2>&1"


# All seeds of one adapter on one behavior. Random-dictionary twins train every adapter but the reference, which does not
# touch the dictionary.
rule train:
    input:
        model,
        sae,
        cache,
        erased,
        contrast_caches,
        given_files,
    output:
        directory(at.adapter("{subject}", "{behavior}", "{adapter}")),
    log:
        at.log("train", "{subject}", "{behavior}", "{adapter}"),
    benchmark:
        at.benchmark("train", "{subject}", "{behavior}", "{adapter}")
    wildcard_constraints:
        subject=one_of(plan.all_subjects),
        behavior=one_of(plan.all_behaviors),
    group:
        together("training")
    threads: study.threads * study.processes
    resources:
        **{name: n * study.processes for name, n in GPU.items()},
        mem_mb=memory(24000),
        runtime=minutes(480),
    params:
        study=study_path,
        start=TOGETHER,
        code=lambda w: code(
            "train",
            *kinds([w.adapter]),
            Part(OBJECTIVES, study.adapters[w.adapter].objective),
        ),
        settings=lambda w: settings(
            study.adapters[w.adapter],
            plan.contrast_behaviors(w.behavior, w.adapter),
            ADAPTERS.facts(plan.kind_of(w.adapter)).contrasted
            and plan.rephrases(w.behavior),
            study.n_seeds,
            study.seed,
            study.record_seconds,
            study.train_loss,
        ),
    shell:
        "{params.start}isaerft train --study {params.study:q} --subject {wildcards.subject}"
        " --behavior {wildcards.behavior} --adapter {wildcards.adapter} > {log} 2>&1"
