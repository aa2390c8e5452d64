# A behavior made by a rule of your own: the data is already in records (prompt and
# completion), so the rule has nothing to do but split them. One that fetches, filters or
# writes records itself looks the same; only its command differs.
rule limerick:
    input:
        "data/limericks.jsonl",
    output:
        multiext(
            f"{RESULTS}/behaviors/limerick/",
            "train.jsonl",
            "heldout.jsonl",
            "card.json",
        ),
    log:
        f"{RESULTS}/logs/behavior/limerick.log",
    benchmark:
        f"{RESULTS}/benchmarks/behavior/limerick.tsv"
    priority: 100
    conda:
        "../environment.yml"
    params:
        out=lambda w, output: os.path.dirname(output[0]),
        code=code("split"),
    shell:
        "isaerft split --input {input} --description 'replies are limericks'"
        " --out {params.out} > {log} 2>&1"
