# The whole study, from nothing to tables, figures and pages:
#
#   snakemake --cores all                                  the default study, config/testbed.yaml
#   snakemake --cores all --config study=stories           config/stories.yaml
#   snakemake --cores all --configfile path/to/study.yaml  that file, and nothing else
#   snakemake --cores all calibration                      how the statistics themselves do, config/calibration.yaml
#   snakemake --report results/testbed/report.html     afterwards: everything for readers in one file
import sys

from snakemake.utils import min_version

min_version("9.6")


report: "workflow/report/workflow.rst"


include: "workflow/rules/study.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/worker.smk"


wildcard_constraints:
    subject=one_of(study.subjects),
    behavior=one_of(study.behaviors),
    adapter=one_of(study.adapters),
    source=one_of(study.sources),
    judge=one_of(study.judges),
    scorer=one_of(study.scorers),


rule all:
    default_target: True
    input:
        [at.table(name) for name in tables_of(plan)],
        [at.figure(name) for name in figures_of(plan)],
        [at.page(name) for name in tables_of(plan)],
        [at.page("answers")] if plan.behavior_checked else [],
        [at.subject(name).tokens for name in study.subjects if name not in TESTBEDS],
        at.summary,


include: "workflow/rules/testbed.smk"
include: "workflow/rules/behaviors.smk"
include: "workflow/rules/subjects.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/changes.smk"
include: "workflow/rules/explanations.smk"
include: "workflow/rules/judges.smk"
include: "workflow/rules/scorers.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/calibration.smk"


for path in study.rules:

    include: os.path.abspath(path)


check_behaviors()
if study.llms and workflow.is_main_process:
    print_cost()


localrules:
    all,


onsuccess:
    print(
        f"Read {at.summary} first; the tables are in {at.table('agreement').parent}/.",
        file=sys.stderr,
    )
