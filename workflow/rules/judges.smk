# What a judge expects of every behavior's training from each explanation.
rule judge:
    input:
        truth,
        lambda w: local_files(study.judges[w.judge].path),
        explanations=f"{RESULTS}/explanations/{{subject}}/{{source}}.parquet",
    output:
        f"{RESULTS}/judgements/{{subject}}/{{source}}/{{judge}}.parquet",
    log:
        f"{RESULTS}/logs/judge/{{subject}}.{{source}}.{{judge}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/judge/{{subject}}.{{source}}.{{judge}}.tsv"
    conda:
        "../../environment.yml"
    threads: study.threads
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        study=STUDY,
        dir=folder,
        code=lambda w: code("judge", f"JUDGES.{study.judges[w.judge].kind or w.judge}"),
        settings=lambda w: settings(
            replace(study.judges[w.judge], reference=False, tested=True),
            asked(study.judges[w.judge].llm),
            plan.described,
        ),
    shell:
        "isaerft judge --study {params.study:q} --subject {wildcards.subject} --source {wildcards.source}"
        " --judge {wildcards.judge} --dir {params.dir} --explanations {input.explanations} --out {output} > {log} 2>&1"
