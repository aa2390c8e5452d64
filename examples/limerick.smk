# A behavior made by a rule of your own: the data is already in records (prompt and
# completion), so the rule only has to split them. One that fetches, filters or writes
# records itself looks the same; only its command differs.
rule limerick:
    input:
        "data/limericks.jsonl",
    output:
        records("limerick"),
    log:
        at.log("behavior", "limerick"),
    benchmark:
        at.benchmark("behavior", "limerick")
    priority: 100
    params:
        out=at.behavior("limerick").path,
        code=code("split"),
    shell:
        "isaerft split --input {input} --description 'replies are limericks'"
        " --out {params.out} > {log} 2>&1"
