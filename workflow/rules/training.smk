# All seeds of one adapter on one behavior. Random-dictionary twins train every adapter but the reference, which does not
# touch the dictionary.
rule train:
    input:
        model,
        sae,
        cache,
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
            study.n_seeds,
            study.seed,
            study.record_seconds,
            study.train_loss,
        ),
    shell:
        "{params.start}isaerft train --study {params.study:q} --subject {wildcards.subject}"
        " --behavior {wildcards.behavior} --adapter {wildcards.adapter} > {log} 2>&1"
