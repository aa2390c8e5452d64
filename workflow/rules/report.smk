# From changes and judgements to what a reader gets: tests of agreement, tables, figures, pages, the summary.
RESULT_TABLES = tables_of(plan)
RESULT_FIGURES = figures_of(plan)
# Answers before and after training, for the eye.
ANSWERS = [at.page("answers")] if plan.behavior_checked else []


rule agreement:
    input:
        at.subject("{subject}").sae,
        at.subject("{subject}").latents,
        lambda w: [
            at.changes(name, behavior)
            for name in plan.all_subjects
            if plan.base_subject(name) == w.subject
            for behavior in plan.tested_behaviors
        ],
        lambda w: [
            at.changes(w.subject, twin)
            for twin in plan.behavior_twins
            if w.adapter == study.primary.adapter and w.subject in study.subjects
        ],
        lambda w: (
            [at.placebos(w.subject)]
            if w.adapter == study.primary.adapter and plan.has_placebos(w.subject)
            else []
        ),
        lambda w: explanations(w.subject),
        lambda w: judgements(w.subject),
        lambda w: sample(w.subject, plan.sources_of(w.subject)),
    output:
        directory(at.agreement("{subject}", "{adapter}").path),
    log:
        at.log("agreement", "{subject}", "{adapter}"),
    benchmark:
        at.benchmark("agreement", "{subject}", "{adapter}")
    group:
        together("tests")
    threads: study.threads
    resources:
        mem_mb=memory(8000),
        runtime=minutes(240),
    params:
        study=study_path,
        code=code(
            "agreement",
            *(Part(STATISTICS, name) for name in study.agreement.statistics),
        ),
        settings=settings(
            {source: plan.design_of(source) for source in study.sources},
            study.agreement,
            study.primary,
            study.measures,
            study.controls,
            study.random_dictionary_adapters,
            study.n_seeds,
            study.seed,
            [judge.tested for judge in study.judges.values()],
            [
                (source.wrong_share, source.judges, source.adapters)
                for source in study.sources.values()
            ],
        ),
    shell:
        "isaerft agreement --study {params.study:q} --subject {wildcards.subject} --adapter {wildcards.adapter}"
        " > {log} 2>&1"


# What the suspect data of an audit teaches besides; all audits of one subject together.
rule audit:
    input:
        at.subject("{subject}").latents,
        [at.changes("{subject}", behavior) for behavior in plan.audited_behaviors],
        lambda w: explanations(w.subject),
        lambda w: judgements(w.subject),
        lambda w: sample(w.subject, plan.sources_of(w.subject)),
    output:
        at.audit("{subject}", "audit"),
        at.audit("{subject}", "audit_latents"),
    log:
        at.log("audit", "{subject}"),
    benchmark:
        at.benchmark("audit", "{subject}")
    group:
        together("tests")
    threads: study.threads
    resources:
        mem_mb=memory(8000),
        runtime=minutes(120),
    params:
        study=study_path,
        code=code("audit", Part(STATISTICS, study.primary.statistic)),
        settings=settings(
            study.audits,
            plan.described,
            {
                name: (plan.kind_of(name), study.adapters[name].subsample)
                for name in ANALYSED
            },
            {name: plan.design_of(name) for name in study.sources},
            [(source.wrong_share, source.judges) for source in study.sources.values()],
            [judge.tested for judge in study.judges.values()],
            study.primary,
            study.measures,
            study.agreement,
            study.seed,
        ),
    shell:
        "isaerft audit --study {params.study:q} --subject {wildcards.subject} > {log} 2>&1"


rule tables:
    input:
        [
            file
            for subject in study.subjects
            for file in [
                at.subject(subject).latents,
                at.subject(subject).contexts,
                at.subject(subject).card,
                *explanations(subject),
                *judgements(subject),
                *sample(subject, plan.sources_of(subject)),
            ]
        ],
        [
            at.adapter(subject, behavior, adapter)
            for subject in study.subjects
            for behavior in study.behaviors
            for adapter in study.adapters
        ],
        [
            file
            for subject in study.subjects
            for twin in plan.erased_behaviors
            for file in [
                at.erasure_facts(subject, twin),
                at.changes(subject, twin),
                at.adapter(subject, twin, study.primary.adapter),
            ]
        ],
        [
            at.adapter(twin, behavior, adapter)
            for twin in [*plan.permuted_subjects, *plan.baselines]
            for behavior in plan.trained_behaviors(twin)
            for adapter in plan.analyzed_adapters(twin)
        ],
        [
            file
            for twin in plan.baselines
            for file in [
                at.subject(twin).latents,
                at.subject(twin).card,
                *explanations(twin),
                *judgements(twin),
                *[
                    at.agreement(twin, name).path
                    for name in plan.analyzed_adapters(twin)
                ],
            ]
        ],
        [
            file
            for name in plan.all_subjects
            for behavior in plan.trained_behaviors(name)
            for file in [at.changes(name, behavior), at.diagnostics(name, behavior)]
        ],
        [
            at.scores(subject, source, scorer)
            for subject in study.subjects
            for source in plan.sources_of(subject)
            for scorer in plan.scorers_of(source)
        ],
        [local_files(study.sources[source].key) for source in plan.benchmark_sources],
        [at.subject(subject).truth for subject in TESTBEDS if plan.benchmark_sources],
        [
            at.agreement(subject, adapter).path
            for subject in study.subjects
            for adapter in ANALYSED
        ],
        [
            at.audit(subject, table)
            for subject in study.subjects
            for table in (["audit", "audit_latents"] if study.audits else [])
        ],
        [
            at.changes_over_time(subject, behavior)
            for subject in study.subjects
            for behavior in (plan.tested_behaviors if plan.followed_adapters else [])
        ],
        [
            at.causal_check(subject, behavior)
            for subject in study.subjects
            for behavior in (study.behaviors if plan.causally_checked else [])
        ],
        [
            file
            for subject in study.subjects
            for behavior in (study.behaviors if plan.mapped_adapters else [])
            for file in [
                at.maps(subject, behavior).components,
                at.maps(subject, behavior).pullback,
            ]
        ],
        [
            at.subject(subject).composition
            for subject in study.subjects
            if study.meta_sae
        ],
        [
            at.loss_curves(subject, behavior)
            for subject in study.subjects
            for behavior in study.curved_behaviors
        ],
        [
            at.behavior_check(subject, behavior).scores
            for subject in study.subjects
            for behavior in plan.behavior_checked
        ],
        [
            at.noise_probe(subject, behavior)
            for subject in study.subjects
            for behavior in plan.noise_probed
        ],
        [at.steering_check(subject).scores for subject in plan.steering_checked],
    output:
        [
            report(
                at.table(name),
                caption=caption(TABLES[name].caption),
                category="Tables",
                labels={"table": name.replace("_", " "), "as": "CSV"},
            )
            for name in RESULT_TABLES
        ],
    log:
        at.log("tables"),
    benchmark:
        at.benchmark("tables")
    resources:
        mem_mb=memory(8000),
        runtime=minutes(60),
    params:
        study=study_path,
        code=code("tables", packages=("isaerft.analysis",)),
        # Whatever a table may read; how and where jobs run decides nothing.
        settings=settings(
            replace(
                study, threads=1, processes=1, device="auto", rules=[], tracking=None
            )
        ),
    shell:
        "isaerft tables --study {params.study:q} > {log} 2>&1"


rule figures:
    input:
        [at.table(name) for name in RESULT_TABLES],
    output:
        [
            report(
                at.figure(name),
                caption=caption(FIGURES[name].caption),
                category="Figures",
                labels={"figure": name.replace("_", " ")},
            )
            for name in RESULT_FIGURES
        ],
    log:
        at.log("figures"),
    benchmark:
        at.benchmark("figures")
    localrule: True
    resources:
        mem_mb=memory(2000),
        runtime=minutes(20),
    params:
        study=study_path,
        code=code("figures", packages=("isaerft.report",)),
        settings=settings(
            {
                name: (source.side, plan.doses.get(name))
                for name, source in study.sources.items()
            }
        ),
    shell:
        "isaerft figures --study {params.study:q} > {log} 2>&1"


rule pages:
    input:
        [at.table(name) for name in RESULT_TABLES],
    output:
        [
            report(
                at.page(name),
                caption=caption(TABLES[name].caption),
                category="Tables",
                labels={"table": name.replace("_", " "), "as": "page"},
            )
            for name in RESULT_TABLES
        ],
    log:
        at.log("pages"),
    benchmark:
        at.benchmark("pages")
    localrule: True
    resources:
        mem_mb=memory(2000),
        runtime=minutes(20),
    params:
        study=study_path,
        code=code("pages", packages=("isaerft.analysis",)),
    shell:
        "isaerft pages --study {params.study:q} > {log} 2>&1"


# One page, with data files that it loads: it is for the disk, not for the report.
rule latent_pages:
    input:
        [at.table(name) for name in LATENT_TABLES if name in RESULT_TABLES],
        [
            file
            for subject in study.subjects
            for file in [
                at.subject(subject).latents,
                at.subject(subject).contexts,
                at.subject(subject).activations,
                at.subject(subject).neighbors,
                *[at.changes(subject, name) for name in plan.tested_behaviors],
                *explanations(subject),
                *judgements(subject),
            ]
        ],
        [at.placebos(name) for name in study.subjects if plan.has_placebos(name)],
        [at.steering_check(subject).answers for subject in plan.steering_checked],
    output:
        directory(at.latents),
    log:
        at.log("latent_pages"),
    benchmark:
        at.benchmark("latent_pages")
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        study=study_path,
        code=code("latent-pages", packages=("isaerft.report",)),
        settings=settings(
            study.study,
            study.primary,
            {name: part.description for name, part in study.behaviors.items()},
            {name: source.wrong_share for name, source in study.sources.items()},
            study.agreement.min_firing_rate,
        ),
    shell:
        "isaerft latent-pages --study {params.study:q} > {log} 2>&1"


rule answers_page:
    input:
        [
            at.behavior_check(subject, behavior).answers
            for subject in study.subjects
            for behavior in plan.behavior_checked
        ],
    output:
        report(
            at.page("answers"),
            caption=caption(
                "A few answers before and after training, with their scores."
            ),
            category="Tables",
            labels={"table": "answers before and after", "as": "page"},
        ),
    log:
        at.log("answers_page"),
    benchmark:
        at.benchmark("answers_page")
    localrule: True
    resources:
        mem_mb=memory(2000),
        runtime=minutes(20),
    params:
        study=study_path,
        code=code("answers-page"),
        settings=settings(study.behavior_check.shown, plan.behavior_checked),
    shell:
        "isaerft answers-page --study {params.study:q} > {log} 2>&1"


rule summary:
    input:
        ANSWERS,
        [at.table(name) for name in RESULT_TABLES],
        [at.figure(name) for name in RESULT_FIGURES],
        [at.page(name) for name in RESULT_TABLES],
    output:
        report(
            at.summary,
            caption=caption(SUMMARY_CAPTION),
            category="Summary",
            labels={"page": "read first"},
        ),
    log:
        at.log("summary"),
    benchmark:
        at.benchmark("summary")
    localrule: True
    resources:
        mem_mb=memory(2000),
        runtime=minutes(20),
    params:
        study=study_path,
        code=code("summary", packages=("isaerft.report",)),
        settings=settings(
            study.study,
            study.record_seconds,
            study.smallest_effect,
            study.agreement.confidence_level,
        ),
    shell:
        "isaerft summary --study {params.study:q} > {log} 2>&1"
