# Behavior data -> records, split into train and held-out. High priority, so that bad data shows before the long jobs.
# A rule of your own with the same outputs and a fixed name takes precedence (docs/add_a_behavior.md).
rule behavior:
    input:
        raw_data,
        donor,
        metric_files,
    output:
        records("{behavior}"),
    log:
        at.log("behavior", "{behavior}"),
    benchmark:
        at.benchmark("behavior", "{behavior}")
    priority: 100
    group:
        "data"
    resources:
        mem_mb=memory(4000),
        runtime=minutes(60),
    params:
        study=study_path,
        code=lambda w: code("behavior", *metric_of_elicited(w)),
        # Without the description, which only judges read: a better wording reruns no training.
        settings=lambda w: settings(
            replace(study.behaviors[w.behavior], description="-", contrast="others"),
            (study.behaviors[w.behavior].testbed or w.behavior in ELICITED)
            and plan.compares_replies(w.behavior),
            study.behaviors[w.behavior].testbed and study.rephrased_prompts,
        ),
    shell:
        "isaerft behavior --study {params.study:q} --behavior {wildcards.behavior} > {log} 2>&1"


# Replies of a subject's own model, with the behavior's instruction and without it. Which of them show the behavior is
# decided by the rule above, so that another metric samples nothing again.
if ELICITED and study.replies is None:

    rule elicit:
        input:
            lambda w: model_of(plan.eliciting_subject(w.behavior)),
            lambda w: study.behaviors[w.behavior].elicit.prompts,
        output:
            at.elicited("{behavior}"),
        log:
            at.log("elicit", "{behavior}"),
        benchmark:
            at.benchmark("elicit", "{behavior}")
        wildcard_constraints:
            behavior=one_of(ELICITED),
        priority: 100
        threads: study.threads
        resources:
            **GPU,
            mem_mb=memory(16000),
            runtime=minutes(120),
        params:
            study=study_path,
            code=code("elicit"),
            settings=lambda w: settings(
                *options_of(
                    plan.eliciting_subject(w.behavior),
                    "model gguf revision testbed prepend_bos dtype",
                ),
                replace(
                    study.behaviors[w.behavior].elicit, min_score=None, min_share=0
                ),
                study.behaviors[w.behavior].chat_template,
                study.max_length,
                study.batch_size,
                study.seed,
            ),
        shell:
            "isaerft elicit --study {params.study:q} --behavior {wildcards.behavior} > {log} 2>&1"


# A behavior's twin: the same prompts, with completions exchanged between them.
rule shuffle:
    input:
        lambda w: records(plan.shuffled_behaviors[w.behavior]),
    output:
        records("{behavior}"),
    log:
        at.log("shuffle", "{behavior}"),
    benchmark:
        at.benchmark("shuffle", "{behavior}")
    wildcard_constraints:
        behavior=one_of(plan.shuffled_behaviors) or "(?!)",
    group:
        "data"
    resources:
        mem_mb=memory(2000),
        runtime=minutes(20),
    params:
        study=study_path,
        code=code("shuffle"),
        settings=settings(study.seed),
    shell:
        "isaerft shuffle --study {params.study:q} --behavior {wildcards.behavior} > {log} 2>&1"
