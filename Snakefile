# The whole experiment: smoke run of every agent config, tables, selection, long run of the winner,
# publication.
#
#   snakemake --cores 2        runs what is missing; -n lists it, --dag draws it
#
# The path of an expensive output contains the digest of its inputs. A folder with constant file
# names contains inputs-{digest}.json instead. So the path alone shows whether an output is current.
# Modification times are not used: they are arbitrary after `dvc pull` or in a fresh clone.

from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/judge.smk"


onstart:
    if notice := notice_of_separate_processes(PLAN):
        logger.info(notice)


localrules:
    all,
    tables,
    selected,
    long_runs,
    published,


# The targets, in the order of the stages in dvc.yaml. They name all files, so that deleted ones are
# restored, even if everything that was made of them exists.
rule all:
    default_target: True
    input:
        rules.report.output,
        rules.publish.output,
        rules.select.output,
        rules.aggregate.output,


rule tables:
    input:
        rules.aggregate.output,


rule selected:
    input:
        rules.select.output,


rule long_runs:
    input:
        selected_run_records,


rule published:
    input:
        rules.publish.output,
        rules.select.output,
        rules.aggregate.output,
