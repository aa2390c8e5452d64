# Behavior data -> records, split into train and held-out. High priority, so that bad data shows before the long jobs.
# A rule of your own with the same outputs and a fixed name takes precedence (docs/add_a_behavior.md).
rule behavior:
    input:
        raw_data,
        donor=donor,
    output:
        multiext(
            f"{RESULTS}/behaviors/{{behavior}}/",
            "train.jsonl",
            "heldout.jsonl",
            "card.json",
        ),
    log:
        f"{RESULTS}/logs/behavior/{{behavior}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/behavior/{{behavior}}.tsv"
    priority: 100
    conda:
        "../../environment.yml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        study=STUDY,
        given=lambda w, input: (
            f"--input {input[0]}" if study.behaviors[w.behavior].testbed else ""
        ),
        poison=lambda w, input: [
            f"--poison {os.path.dirname(path)}" for path in input.donor[:1]
        ],
        out=lambda w, output: os.path.dirname(output[0]),
        code=code("behavior"),
        # Without the description, which only judges read: a better wording reruns no training.
        settings=lambda w: settings(
            replace(study.behaviors[w.behavior], description="-", contrast="others"),
            study.behaviors[w.behavior].testbed and plan.compares_replies(w.behavior),
        ),
    shell:
        "isaerft behavior --study {params.study:q} --behavior {wildcards.behavior} {params.given} {params.poison} --out {params.out}"
        " > {log} 2>&1"


# A behavior's twin: the same prompts, with completions exchanged between them.
rule shuffle:
    input:
        multiext(
            f"{RESULTS}/behaviors/{{behavior}}/",
            "train.jsonl",
            "heldout.jsonl",
            "card.json",
        ),
    output:
        multiext(
            f"{RESULTS}/behaviors/{{behavior}}{SHUFFLED}/",
            "train.jsonl",
            "heldout.jsonl",
            "card.json",
        ),
    log:
        f"{RESULTS}/logs/shuffle/{{behavior}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/shuffle/{{behavior}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        study=STUDY,
        records=lambda w, input: os.path.dirname(input[0]),
        out=lambda w, output: os.path.dirname(output[0]),
        code=code("shuffle"),
        settings=settings(study.seed),
    shell:
        "isaerft shuffle --study {params.study:q} --behavior {wildcards.behavior} --records {params.records}"
        " --out {params.out} > {log} 2>&1"
