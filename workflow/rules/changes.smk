# How much each latent changed, by every measure, for all adapters whose changes are analyzed.
rule changes:
    input:
        model,
        sae,
        cache,
        erased,
        lambda w: [
            at.adapter(w.subject, w.behavior, name)
            for name in plan.trained_adapters(w.subject, w.behavior)
        ],
    output:
        at.changes("{subject}", "{behavior}"),
        at.diagnostics("{subject}", "{behavior}"),
    log:
        at.log("changes", "{subject}", "{behavior}"),
    benchmark:
        at.benchmark("changes", "{subject}", "{behavior}")
    wildcard_constraints:
        subject=one_of(plan.all_subjects),
        behavior=one_of(plan.all_behaviors),
    group:
        together("training")
    threads: study.threads
    resources:
        **GPU,
        mem_mb=memory(24000),
        runtime=minutes(240),
    params:
        study=study_path,
        code=code(
            "changes",
            *(Part(MEASURES, name) for name in study.measures),
            *kinds(study.adapters),
        ),
        settings=settings(study.measures, study.batch_size, study.n_seeds, study.seed),
    shell:
        "isaerft changes --study {params.study:q} --subject {wildcards.subject} --behavior {wildcards.behavior} > {log} 2>&1"


# The same at checkpoints on the way, by the primary measure.
rule changes_over_time:
    input:
        model,
        sae,
        cache,
        [at.adapter("{subject}", "{behavior}", name) for name in plan.followed_adapters],
    output:
        at.changes_over_time("{subject}", "{behavior}"),
    log:
        at.log("changes_over_time", "{subject}", "{behavior}"),
    benchmark:
        at.benchmark("changes_over_time", "{subject}", "{behavior}")
    wildcard_constraints:
        subject=one_of(study.subjects),
        behavior=one_of(plan.tested_behaviors),
    group:
        together("training")
    threads: study.threads
    resources:
        **GPU,
        mem_mb=memory(24000),
        runtime=minutes(240),
    params:
        study=study_path,
        code=code(
            "changes-over-time",
            Part(MEASURES, study.primary.measure),
            *kinds(plan.followed_adapters),
        ),
        settings=settings(
            plan.followed_adapters,
            study.primary.measure,
            study.batch_size,
            study.n_seeds,
            study.seed,
        ),
    shell:
        "isaerft changes-over-time --study {params.study:q} --subject {wildcards.subject}"
        " --behavior {wildcards.behavior} > {log} 2>&1"


# The same for placebos: the primary adapter, trained on the model's own answers.
rule placebos:
    input:
        model,
        at.subject("{subject}").sae,
        # The gate let the subject pass: nothing in its card is read.
        ancient(at.subject("{subject}").card),
        [file for behavior in plan.tested_behaviors for file in records(behavior)[:2]],
    output:
        at.placebos("{subject}"),
    log:
        at.log("placebos", "{subject}"),
    benchmark:
        at.benchmark("placebos", "{subject}")
    # One long job, which would else run alone at the end.
    priority: 50
    threads: study.threads
    resources:
        **GPU,
        mem_mb=memory(24000),
        runtime=minutes(480),
    params:
        study=study_path,
        code=code(
            "placebos",
            *kinds([study.primary.adapter]),
            Part(OBJECTIVES, study.adapters[study.primary.adapter].objective),
            *(Part(MEASURES, name) for name in study.measures),
        ),
        settings=lambda w: settings(
            study.placebos,
            study.primary.adapter,
            study.adapters[study.primary.adapter],
            *of_subject(w, "model gguf revision hook_name dtype prepend_bos"),
            *of_subject(w, "center_writing_weights"),
            {
                name: study.behaviors[name].chat_template
                for name in plan.tested_behaviors
            },
            study.measures,
            study.max_length,
            study.batch_size,
            study.n_seeds,
            study.seed,
        ),
    shell:
        "isaerft placebos --study {params.study:q} --subject {wildcards.subject} > {log} 2>&1"


# What remains of the fall in loss when the most changed latents, or matched random ones, are set back to no change.
rule causal_check:
    input:
        model,
        sae,
        cache,
        at.subject("{subject}").latents,
        [at.adapter("{subject}", "{behavior}", name) for name in plan.causally_checked],
        at.changes("{subject}", "{behavior}"),
    output:
        at.causal_check("{subject}", "{behavior}"),
    log:
        at.log("causal_check", "{subject}", "{behavior}"),
    benchmark:
        at.benchmark("causal_check", "{subject}", "{behavior}")
    group:
        together("training")
    threads: study.threads
    resources:
        **GPU,
        mem_mb=memory(24000),
        runtime=minutes(240),
    params:
        study=study_path,
        code=code("causal-check", *kinds(plan.causally_checked)),
        settings=settings(
            study.causal_check,
            study.primary.measure,
            study.agreement.min_firing_rate,
            study.agreement.confidence_level,
            study.batch_size,
            study.n_seeds,
            study.seed,
        ),
    shell:
        "isaerft causal-check --study {params.study:q} --subject {wildcards.subject}"
        " --behavior {wildcards.behavior} > {log} 2>&1"


# What the linear maps that were learned read and write, and the part of each component in the fall in loss.
rule map_components:
    input:
        model,
        sae,
        cache,
        at.subject("{subject}").latents,
        [at.adapter("{subject}", "{behavior}", name) for name in plan.mapped_adapters],
    output:
        at.maps("{subject}", "{behavior}").components,
        at.maps("{subject}", "{behavior}").pullback,
    log:
        at.log("map_components", "{subject}", "{behavior}"),
    benchmark:
        at.benchmark("map_components", "{subject}", "{behavior}")
    group:
        together("training")
    threads: study.threads
    resources:
        **GPU,
        mem_mb=memory(24000),
        runtime=minutes(240),
    params:
        study=study_path,
        code=code("map-components", *kinds(plan.mapped_adapters)),
        settings=settings(
            study.map_components,
            study.agreement.min_firing_rate,
            study.batch_size,
            study.seed,
        ),
    shell:
        "isaerft map-components --study {params.study:q} --subject {wildcards.subject}"
        " --behavior {wildcards.behavior} > {log} 2>&1"


# Held-out loss of linear maps with few directions, in the SAE's basis and in the residual stream.
rule loss_curves:
    input:
        model,
        sae,
        cache,
    output:
        at.loss_curves("{subject}", "{behavior}"),
    log:
        at.log("loss_curves", "{subject}", "{behavior}"),
    benchmark:
        at.benchmark("loss_curves", "{subject}", "{behavior}")
    group:
        together("training")
    threads: study.threads
    resources:
        **GPU,
        mem_mb=memory(24000),
        runtime=minutes(480),
    params:
        study=study_path,
        code=code("loss-curves"),
        settings=settings(
            study.loss_curves,
            study.batch_size,
            study.seed,
        ),
    shell:
        "isaerft loss-curves --study {params.study:q} --subject {wildcards.subject}"
        " --behavior {wildcards.behavior} > {log} 2>&1"


# Answers to held-out prompts before and after training, scored by the behavior's metric.
rule behavior_check:
    input:
        model,
        metric_files,
        sae,
        at.behavior("{behavior}").heldout,
        lambda w: [
            at.adapter(w.subject, w.behavior, name)
            for name in plan.behavior_checked[w.behavior]
        ],
    output:
        at.behavior_check("{subject}", "{behavior}").scores,
        at.behavior_check("{subject}", "{behavior}").answers,
    log:
        at.log("behavior_check", "{subject}", "{behavior}"),
    benchmark:
        at.benchmark("behavior_check", "{subject}", "{behavior}")
    group:
        together("training")
    threads: study.threads
    resources:
        **GPU,
        mem_mb=memory(24000),
        runtime=minutes(240),
    params:
        study=study_path,
        code=lambda w: code(
            "behavior-check",
            Part(
                METRICS, getattr(study.behaviors[w.behavior].metric, "kind", "words")
            ),
            *kinds(plan.behavior_checked[w.behavior]),
        ),
        settings=lambda w: settings(
            replace(study.behavior_check, behaviors=None, adapters=None, shown=0),
            plan.behavior_checked[w.behavior],
            study.behaviors[w.behavior].metric,
            study.behaviors[w.behavior].testbed,
            study.behaviors[w.behavior].testbed_words,
            study.behaviors[w.behavior].chat_template,
            study.agreement.confidence_level,
            study.max_length,
            study.batch_size,
            study.seed,
        ),
    shell:
        "isaerft behavior-check --study {params.study:q} --subject {wildcards.subject}"
        " --behavior {wildcards.behavior} > {log} 2>&1"


# The same answers, and the held-out loss, under noise of growing size.
rule noise_probe:
    input:
        model,
        metric_files,
        sae,
        cache,
        at.behavior("{behavior}").heldout,
        lambda w: [
            at.adapter(w.subject, w.behavior, name)
            for name in plan.noise_probed[w.behavior]
        ],
    output:
        at.noise_probe("{subject}", "{behavior}"),
    log:
        at.log("noise_probe", "{subject}", "{behavior}"),
    benchmark:
        at.benchmark("noise_probe", "{subject}", "{behavior}")
    group:
        together("training")
    threads: study.threads
    resources:
        **GPU,
        mem_mb=memory(24000),
        runtime=minutes(480),
    params:
        study=study_path,
        code=lambda w: code(
            "noise-probe",
            Part(
                METRICS, getattr(study.behaviors[w.behavior].metric, "kind", "words")
            ),
            *kinds(plan.noise_probed[w.behavior]),
        ),
        settings=lambda w: settings(
            replace(study.noise_probe, behaviors=None, adapters=None),
            replace(study.behavior_check, behaviors=None, adapters=None, shown=0),
            plan.noise_probed[w.behavior],
            study.behaviors[w.behavior].metric,
            study.behaviors[w.behavior].testbed,
            study.behaviors[w.behavior].testbed_words,
            study.behaviors[w.behavior].chat_template,
            study.max_length,
            study.batch_size,
            study.seed,
        ),
    shell:
        "isaerft noise-probe --study {params.study:q} --subject {wildcards.subject}"
        " --behavior {wildcards.behavior} > {log} 2>&1"


# Answers while latents with a verdict, and untested ones like them, are amplified and suppressed.
rule steering_check:
    input:
        model,
        sae,
        at.subject("{subject}").latents,
        [at.changes("{subject}", behavior) for behavior in plan.tested_behaviors],
        at.explanations("{subject}", study.primary.source),
        at.judgements("{subject}", study.primary.source, study.primary.judge),
        lambda w: sample(w.subject, [study.primary.source]),
        steering_prompts,
        [
            file
            for name in plan.steering_scored
            if study.behaviors[name].metric
            for file in local_files(study.behaviors[name].metric.model)
        ],
    output:
        at.steering_check("{subject}").scores,
        at.steering_check("{subject}").answers,
    log:
        at.log("steering_check", "{subject}"),
    benchmark:
        at.benchmark("steering_check", "{subject}")
    wildcard_constraints:
        subject=one_of(plan.steering_checked or study.subjects),
    threads: study.threads
    resources:
        **GPU,
        mem_mb=memory(24000),
        runtime=minutes(240),
    params:
        study=study_path,
        code=code(
            "steering-check",
            *(
                Part(METRICS, getattr(study.behaviors[name].metric, "kind", "words"))
                for name in plan.steering_scored
            ),
        ),
        settings=settings(
            study.steering_check,
            [
                (
                    name,
                    study.behaviors[name].metric,
                    study.behaviors[name].testbed,
                    study.behaviors[name].testbed_words,
                    study.behaviors[name].chat_template,
                    study.behaviors[name].family,
                )
                for name in plan.tested_behaviors
            ],
            study.primary,
            plan.design_of(study.primary.source),
            replace(study.agreement, top_k=1, statistics=[]),
            study.max_length,
            study.batch_size,
            study.n_seeds,
            study.seed,
        ),
    shell:
        "isaerft steering-check --study {params.study:q} --subject {wildcards.subject} > {log} 2>&1"
