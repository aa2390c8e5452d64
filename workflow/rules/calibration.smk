# The calibration study: `snakemake --cores all calibration`. It needs no study of a model and belongs to none.
from isaerft.config import Calibration, load_calibration
from isaerft.layout import Results

CALIBRATION, calibrated = "config/calibration.yaml", Results("results/calibration")
# A part that is added to one of these lists runs alone.
PART_LISTS = "worlds null_latents power_latents coverage_odds_ratios wrong_shares judged_explanations"
calibration = Calibration()
if os.path.isfile(CALIBRATION):
    try:
        calibration = load_calibration(CALIBRATION)
    except InputError as error:
        stop(f"{CALIBRATION}: {error}")


rule calibration_part:
    output:
        calibrated.calibration_part("{part}"),
    log:
        calibrated.log("calibration_part", "{part}"),
    benchmark:
        calibrated.benchmark("calibration_part", "{part}")
    wildcard_constraints:
        part=one_of(calibration.parts),
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        config=CALIBRATION,
        code=code(
            "calibration-part",
            *(Part(STATISTICS, name) for name in STATISTICS.builtin),
        ),
        settings=settings(replace(calibration, **dict.fromkeys(PART_LISTS.split(), []))),
    shell:
        "isaerft calibration-part --config {params.config:q} --part {wildcards.part} > {log} 2>&1"


rule calibration:
    input:
        [calibrated.calibration_part(part) for part in calibration.parts],
    output:
        calibrated.table("calibration"),
        calibrated.page("calibration"),
        calibrated.figure("calibration"),
    log:
        calibrated.log("calibration"),
    benchmark:
        calibrated.benchmark("calibration")
    localrule: True
    resources:
        mem_mb=2000,
        runtime=20,
    params:
        config=CALIBRATION,
        code=code("calibration", packages=("isaerft.report",)),
    shell:
        "isaerft calibration --config {params.config:q} > {log} 2>&1"
