# The calibration study: `snakemake --cores calibration`. It needs no study of a model and belongs to none.
from isaerft.config import Calibration, load_calibration

CALIBRATION, CALIBRATED = "config/calibration.yaml", "results/calibration"
LISTED = "worlds null_latents bins_latents power_latents coverage_odds_ratios wrong_shares judged_explanations".split()
calibration = Calibration()
if os.path.isfile(CALIBRATION):
    try:
        calibration = load_calibration(CALIBRATION)
    except InputError as error:
        stop(f"{CALIBRATION}: {error}")


rule calibrate:
    output:
        f"{CALIBRATED}/parts/{{part}}.csv",
    log:
        f"{CALIBRATED}/logs/calibrate/{{part}}.log",
    benchmark:
        f"{CALIBRATED}/benchmarks/calibrate/{{part}}.tsv"
    wildcard_constraints:
        part=one_of(calibration.parts),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        config=CALIBRATION,
        code=code("calibrate"),
        # Lists of parts left out: a part that is added runs alone.
        settings=settings(replace(calibration, **dict.fromkeys(LISTED, []))),
    shell:
        "isaerft calibrate --config {params.config:q} --part {wildcards.part} --out {output} > {log} 2>&1"


rule calibration_table:
    input:
        expand(f"{CALIBRATED}/parts/{{part}}.csv", part=calibration.parts),
    output:
        f"{CALIBRATED}/tables/calibration.csv",
    log:
        f"{CALIBRATED}/logs/calibration_table.log",
    benchmark:
        f"{CALIBRATED}/benchmarks/calibration_table.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        config=CALIBRATION,
        parts=lambda w, input: os.path.dirname(input[0]),
        code=code("calibration"),
    shell:
        "isaerft calibration --config {params.config:q} --parts {params.parts} --out {output} > {log} 2>&1"


rule calibration_page:
    input:
        table=f"{CALIBRATED}/tables/calibration.csv",
    output:
        f"{CALIBRATED}/pages/calibration.html",
    log:
        f"{CALIBRATED}/logs/calibration_page.log",
    benchmark:
        f"{CALIBRATED}/benchmarks/calibration_page.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        tables=lambda w, input: os.path.dirname(input.table),
        out=lambda w, output: os.path.dirname(output[0]),
        code=code("pages"),
    shell:
        "isaerft pages --tables {params.tables} --out {params.out} > {log} 2>&1"


rule calibration_figure:
    input:
        table=f"{CALIBRATED}/tables/calibration.csv",
    output:
        f"{CALIBRATED}/figures/calibration.svg",
    log:
        f"{CALIBRATED}/logs/calibration_figure.log",
    benchmark:
        f"{CALIBRATED}/benchmarks/calibration_figure.tsv"
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        study=STUDY,
        tables=lambda w, input: os.path.dirname(input.table),
        code=code("figure"),
    shell:
        "isaerft figure calibration --study {params.study:q} --tables {params.tables} --out {output} > {log} 2>&1"


rule calibration:
    input:
        rules.calibration_table.output,
        rules.calibration_page.output,
        rules.calibration_figure.output,


localrules:
    calibration,
