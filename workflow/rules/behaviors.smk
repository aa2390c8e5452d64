# Behavior data -> records, split into train and held-out. High priority, so that bad data shows before the long jobs.
# A rule of your own with the same outputs and a fixed name takes precedence (docs/add_a_behavior.md).
rule behavior:
    input:
        raw_data,
        donor,
    output:
        records("{behavior}"),
    log:
        at.log("behavior", "{behavior}"),
    benchmark:
        at.benchmark("behavior", "{behavior}")
    priority: 100
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        study=STUDY,
        code=code("behavior"),
        # Without the description, which only judges read: a better wording reruns no training.
        settings=lambda w: settings(
            replace(study.behaviors[w.behavior], description="-", contrast="others"),
            study.behaviors[w.behavior].testbed and plan.compares_replies(w.behavior),
        ),
    shell:
        "isaerft behavior --study {params.study:q} --behavior {wildcards.behavior} > {log} 2>&1"


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
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        study=STUDY,
        code=code("shuffle"),
        settings=settings(study.seed),
    shell:
        "isaerft shuffle --study {params.study:q} --behavior {wildcards.behavior} > {log} 2>&1"
