# From changes and judgements to what a reader gets: tests of agreement, tables, figures, pages, the summary.
rule agreement:
    input:
        f"{RESULTS}/subjects/{{subject}}/sae",
        f"{RESULTS}/subjects/{{subject}}/latents.parquet",
        lambda w: expand(
            f"{RESULTS}/changes/{{x}}/{{b}}.parquet",
            x=[name for name in BASE if BASE[name] == w.subject],
            b=plan.tested_behaviors,
        ),
        lambda w: [
            f"{RESULTS}/changes/{w.subject}/{twin}.parquet"
            for twin in plan.shuffled_behaviors
            if w.adapter == study.primary.adapter
        ],
        lambda w: expand(
            f"{RESULTS}/explanations/{w.subject}/{{source}}.parquet",
            source=sources_of(w.subject),
        ),
        lambda w: expand(
            f"{RESULTS}/judgements/{w.subject}/{{judged}}.parquet",
            judged=judged_of(w.subject),
        ),
        sample=lambda w: sample(w.subject, sources_of(w.subject)),
    output:
        directory(f"{RESULTS}/agreement/{{subject}}/{{adapter}}"),
    log:
        f"{RESULTS}/logs/agreement/{{subject}}.{{adapter}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/agreement/{{subject}}.{{adapter}}.tsv"
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        study=STUDY,
        dir=folder,
        changes=lambda w: f"{RESULTS}/changes",
        explanations=lambda w: f"{RESULTS}/explanations/{w.subject}",
        judgements=lambda w: f"{RESULTS}/judgements/{w.subject}",
        sample=lambda w, input: [f"--sample {path}" for path in input.sample],
        code=code("agreement", *study.agreement.statistics),
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
        " --dir {params.dir} --changes {params.changes} --explanations {params.explanations}"
        " --judgements {params.judgements} {params.sample} --out {output} > {log} 2>&1"


# What the suspect data of an audit teaches besides; all audits of one subject together.
rule audit:
    input:
        f"{RESULTS}/subjects/{{subject}}/latents.parquet",
        expand(
            f"{RESULTS}/changes/{{{{subject}}}}/{{behavior}}.parquet",
            behavior=sorted(AUDITED),
        ),
        lambda w: expand(
            f"{RESULTS}/explanations/{w.subject}/{{source}}.parquet",
            source=sources_of(w.subject),
        ),
        lambda w: expand(
            f"{RESULTS}/judgements/{w.subject}/{{judged}}.parquet",
            judged=judged_of(w.subject),
        ),
        lambda w: sample(w.subject, sources_of(w.subject)),
    output:
        directory(f"{RESULTS}/audit/{{subject}}"),
    log:
        f"{RESULTS}/logs/audit/{{subject}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/audit/{{subject}}.tsv"
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        study=STUDY,
        results=lambda w: RESULTS,
        code=code("audit", study.primary.statistic),
        settings=settings(
            study.audits,
            plan.described,
            {
                name: (study.adapters[name].kind, study.adapters[name].subsample)
                for name in TRAINED
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
        "isaerft audit --study {params.study:q} --subject {wildcards.subject} --results {params.results}"
        " --out {output} > {log} 2>&1"


rule tables:
    input:
        expand(
            f"{RESULTS}/subjects/{{subject}}/{{file}}",
            subject=study.subjects,
            file=["latents.parquet", "contexts.parquet", "subject.json"],
        ),
        expand(
            f"{RESULTS}/adapters/{{subject}}/{{behavior}}/{{adapter}}",
            subject=study.subjects,
            behavior=study.behaviors,
            adapter=study.adapters,
        ),
        [
            f"{RESULTS}/adapters/{twin}/{behavior}/{adapter}"
            for twin in plan.permuted_subjects
            for behavior in plan.trained_behaviors(twin)
            for adapter in plan.analysed_adapters(twin)
        ],
        [
            f"{RESULTS}/changes/{name}/{behavior}.parquet"
            for name in BASE
            for behavior in plan.trained_behaviors(name)
        ],
        [
            f"{RESULTS}/explanations/{name}/{source}.parquet"
            for name in study.subjects
            for source in sources_of(name)
        ],
        [
            f"{RESULTS}/judgements/{name}/{judged}.parquet"
            for name in study.subjects
            for judged in judged_of(name)
        ],
        [sample(name, sources_of(name)) for name in study.subjects],
        [
            f"{RESULTS}/scores/{name}/{scored}.parquet"
            for name in study.subjects
            for scored in scored_of(name)
        ],
        expand(
            f"{RESULTS}/agreement/{{subject}}/{{adapter}}",
            subject=study.subjects,
            adapter=TRAINED,
        ),
        expand(
            f"{RESULTS}/audit/{{subject}}", subject=study.subjects if AUDITED else []
        ),
        expand(
            f"{RESULTS}/causal_check/{{subject}}/{{behavior}}.parquet",
            subject=study.subjects if plan.causally_checked else [],
            behavior=study.behaviors,
        ),
        expand(
            f"{RESULTS}/behavior_check/{{subject}}/{{behavior}}/scores.parquet",
            subject=study.subjects,
            behavior=plan.behavior_checked,
        ),
    output:
        [
            report(
                f"{RESULTS}/tables/{table}.csv",
                caption=f"../report/table_{table}.rst",
                category="Tables",
                labels={"table": table.replace("_", " "), "as": "CSV"},
            )
            for table in TABLES
        ],
    log:
        f"{RESULTS}/logs/tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        study=STUDY,
        results=lambda w: RESULTS,
        out=lambda w, output: os.path.dirname(output[0]),
        code=code("tables"),
        settings=settings(
            study.subjects,
            study.adapters,
            study.reference,
            study.sources,
            study.design.kind,
            study.judges,
            study.scorers,
            study.primary,
            study.measures,
            study.controls,
            study.random_dictionary_adapters,
            study.agreement,
            study.causal_check,
            plan.behavior_checked,
            study.audits,
            study.n_seeds,
            study.seed,
            study.record_seconds,
        ),
    shell:
        "isaerft tables --study {params.study:q} --results {params.results} --out {params.out} > {log} 2>&1"


for name in FIGURES:

    rule:
        name:
            f"figure_{name}"
        input:
            expand(f"{RESULTS}/tables/{{table}}.csv", table=TABLES),
        output:
            report(
                f"{RESULTS}/figures/{name}.svg",
                caption="../report/caption.rst",
                category="Figures",
                labels={"figure": name.replace("_", " ")},
            ),
        log:
            f"{RESULTS}/logs/figure/{name}.log",
        benchmark:
            f"{RESULTS}/benchmarks/figure/{name}.tsv"
        localrule: True
        conda:
            "../../environment.yml"
        resources:
            mem_mb=2000,
            runtime=20,
        params:
            name=name,
            caption=DRAWN[name].caption,
            study=STUDY,
            tables=lambda w, input: os.path.dirname(input[0]),
            code=code("figure"),
            settings=settings(
                {
                    source: (study.sources[source].side, share)
                    for source, share in DOSES.items()
                }
            ),
        shell:
            "isaerft figure {params.name} --study {params.study:q} --tables {params.tables} --out {output} > {log} 2>&1"


rule pages:
    input:
        expand(f"{RESULTS}/tables/{{table}}.csv", table=TABLES),
    output:
        [
            report(
                f"{RESULTS}/pages/{table}.html",
                caption=f"../report/table_{table}.rst",
                category="Tables",
                labels={"table": table.replace("_", " "), "as": "page"},
            )
            for table in TABLES
        ],
    log:
        f"{RESULTS}/logs/pages.log",
    benchmark:
        f"{RESULTS}/benchmarks/pages.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        tables=lambda w, input: os.path.dirname(input[0]),
        out=lambda w, output: os.path.dirname(output[0]),
        code=code("pages"),
    shell:
        "isaerft pages --tables {params.tables} --out {params.out} > {log} 2>&1"


rule answers_page:
    input:
        expand(
            f"{RESULTS}/behavior_check/{{subject}}/{{behavior}}/answers.jsonl",
            subject=study.subjects,
            behavior=plan.behavior_checked,
        ),
    output:
        report(
            f"{RESULTS}/pages/answers.html",
            caption="../report/caption.rst",
            category="Tables",
            labels={"table": "answers before and after", "as": "page"},
        ),
    log:
        f"{RESULTS}/logs/answers_page.log",
    benchmark:
        f"{RESULTS}/benchmarks/answers_page.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        caption=ANSWERS_CAPTION,
        study=STUDY,
        results=lambda w: RESULTS,
        code=code("answers-page"),
        settings=settings(study.behavior_check.shown, plan.behavior_checked),
    shell:
        "isaerft answers-page --study {params.study:q} --results {params.results} --out {output} > {log} 2>&1"


rule summary:
    input:
        ANSWERS,
        tables=expand(f"{RESULTS}/tables/{{table}}.csv", table=TABLES),
        figures=expand(f"{RESULTS}/figures/{{figure}}.svg", figure=FIGURES),
        pages=expand(f"{RESULTS}/pages/{{table}}.html", table=TABLES),
    output:
        report(
            f"{RESULTS}/summary.html",
            caption="../report/caption.rst",
            category="Summary",
            labels={"page": "read first"},
        ),
    log:
        f"{RESULTS}/logs/summary.log",
    benchmark:
        f"{RESULTS}/benchmarks/summary.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        caption=SUMMARY_CAPTION,
        study=STUDY,
        tables=lambda w, input: os.path.dirname(input.tables[0]),
        figures=lambda w, input: os.path.dirname(input.figures[0]),
        pages=lambda w, input: os.path.dirname(input.pages[0]),
        code=code("summary"),
        settings=settings(study.study),
    shell:
        "isaerft summary --study {params.study:q} --tables {params.tables} --figures {params.figures}"
        " --pages {params.pages} --out {output} > {log} 2>&1"
