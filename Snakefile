# The whole experiment: smoke every agent config, tabulate, select, train the winner long, publish.
#
#   snakemake --cores 2        run what is missing; -n shows it, --dag draws it
#
# Expensive outputs carry the digest of what they follow from in their path; a folder with constant
# names carries it in inputs-{digest}.json. So a path alone says whether it is current, and
# modification times never matter: they are arbitrary after `dvc pull` or in a fresh clone.

from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/judge.smk"


localrules:
    all,
    tables,
    selected,
    long_runs,
    published,


# The targets, in the order of the stages in dvc.yaml.
rule all:
    default_target: True
    input:
        "results/report.html",
        REPORT_STAMP,


rule tables:
    input:
        TABLES_STAMP,


rule selected:
    input:
        SELECTION_STAMP,


rule long_runs:
    input:
        selected_run_records,


rule published:
    input:
        MODEL_STAMP,
