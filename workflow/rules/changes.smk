# How much each latent changed, by every measure; and diagnostics of the adapters that do not act on latents.
rule changes:
    input:
        model,
        sae=lambda w: f"{folder(w)}/sae",
        cache=cache,
        adapters=lambda w: expand(
            f"{RESULTS}/adapters/{w.subject}/{w.behavior}/{{adapter}}",
            adapter=plan.trained_adapters(w.subject, w.behavior),
        ),
    output:
        changes=f"{RESULTS}/changes/{{subject}}/{{behavior}}.parquet",
        diagnostics=f"{RESULTS}/changes/{{subject}}/{{behavior}}.json",
    log:
        f"{RESULTS}/logs/changes/{{subject}}.{{behavior}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/changes/{{subject}}.{{behavior}}.tsv"
    wildcard_constraints:
        subject=one_of(BASE),
        behavior=one_of(CAPTURED),
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        **GPU,
        mem_mb=24000,
        runtime=240,
    params:
        study=STUDY,
        dir=folder,
        adapters=lambda w, input: os.path.dirname(input.adapters[0]),
        code=code(
            "changes",
            *study.measures,
            *(part.kind or name for name, part in study.adapters.items()),
        ),
        settings=settings(study.measures, study.batch_size, study.n_seeds, study.seed),
    shell:
        "isaerft changes --study {params.study:q} --subject {wildcards.subject} --behavior {wildcards.behavior}"
        " --dir {params.dir} --cache {input.cache} --adapters {params.adapters} --out {output.changes} --diagnostics {output.diagnostics}"
        " > {log} 2>&1"


# What remains of the fall in loss when the most changed latents, or matched random ones, are set back.
rule causal_check:
    input:
        model,
        f"{RESULTS}/subjects/{{subject}}/latents.parquet",
        sae=f"{RESULTS}/subjects/{{subject}}/sae",
        cache=cache,
        adapters=expand(
            f"{RESULTS}/adapters/{{{{subject}}}}/{{{{behavior}}}}/{{adapter}}",
            adapter=plan.causally_checked,
        ),
        changes=f"{RESULTS}/changes/{{subject}}/{{behavior}}.parquet",
    output:
        f"{RESULTS}/causal_check/{{subject}}/{{behavior}}.parquet",
    log:
        f"{RESULTS}/logs/causal_check/{{subject}}.{{behavior}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/causal_check/{{subject}}.{{behavior}}.tsv"
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        **GPU,
        mem_mb=24000,
        runtime=240,
    params:
        study=STUDY,
        dir=folder,
        adapters=lambda w: f"{RESULTS}/adapters/{w.subject}/{w.behavior}",
        changes=lambda w: f"{RESULTS}/changes",
        code=code(
            "causal-check",
            *(study.adapters[name].kind or name for name in plan.causally_checked),
        ),
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
        "isaerft causal-check --study {params.study:q} --subject {wildcards.subject} --behavior {wildcards.behavior}"
        " --dir {params.dir} --cache {input.cache} --adapters {params.adapters} --changes {params.changes}"
        " --out {output} > {log} 2>&1"


# Answers to held-out prompts before and after training, and what a score makes of them.
rule behavior_check:
    input:
        model,
        lambda w: score_files(w.behavior),
        sae=f"{RESULTS}/subjects/{{subject}}/sae",
        records=f"{RESULTS}/behaviors/{{behavior}}/heldout.jsonl",
        adapters=lambda w: expand(
            f"{RESULTS}/adapters/{w.subject}/{w.behavior}/{{adapter}}",
            adapter=plan.behavior_checked[w.behavior],
        ),
    output:
        multiext(
            f"{RESULTS}/behavior_check/{{subject}}/{{behavior}}/",
            "scores.parquet",
            "answers.jsonl",
        ),
    log:
        f"{RESULTS}/logs/behavior_check/{{subject}}.{{behavior}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/behavior_check/{{subject}}.{{behavior}}.tsv"
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        **GPU,
        mem_mb=24000,
        runtime=240,
    params:
        study=STUDY,
        dir=folder,
        records=lambda w, input: os.path.dirname(input.records),
        adapters=lambda w: f"{RESULTS}/adapters/{w.subject}/{w.behavior}",
        out=lambda w, output: os.path.dirname(output[0]),
        code=lambda w: code(
            "behavior-check",
            getattr(study.behaviors[w.behavior].metric, "kind", "words"),
            *(
                study.adapters[name].kind or name
                for name in plan.behavior_checked[w.behavior]
            ),
        ),
        settings=lambda w: settings(
            replace(study.behavior_check, behaviors=None, adapters=None, shown=0),
            plan.behavior_checked[w.behavior],
            study.behaviors[w.behavior].metric,
            study.behaviors[w.behavior].testbed,
            study.agreement.confidence_level,
            study.max_length,
            study.batch_size,
            study.seed,
        ),
    shell:
        "isaerft behavior-check --study {params.study:q} --subject {wildcards.subject} --behavior {wildcards.behavior}"
        " --dir {params.dir} --records {params.records} --adapters {params.adapters} --out {params.out}"
        " > {log} 2>&1"
