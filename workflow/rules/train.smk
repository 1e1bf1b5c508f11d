# The expensive runs. `heteromark train` is idempotent: it copies runs that are in the run store.
# These outputs may therefore be deleted and made again without repeated training.


# Trains several smoke runs in one process and leaves them in the run store, where rule smoke finds
# them. The file says only that this has happened; its absence makes nothing outdated.
rule cohort:
    output:
        temp(touch("logs/cohorts/rung_{rung}-processes_{processes}-{cohort}.done")),
    log:
        "logs/cohorts/rung_{rung}-processes_{processes}-{cohort}.log",
    threads: PLAN.params.num_threads
    params:
        folders=folders_of_cohort,
        python=PYTHON,
        params=params_options,
    message:
        "smoke runs, {params.folders} in one process"
    shell:
        "{params.python} workflow cohort {params.folders:q} {params.params} > {log:q} 2>&1"


rule smoke:
    input:
        ancient(cohort_of_smoke_run),
    output:
        record="results/smoke/{name}-{digest}/seed_{seed}/run.json",
        config="results/smoke/{name}-{digest}/seed_{seed}/config.yaml",
        metrics="results/smoke/{name}-{digest}/seed_{seed}/metrics.csv",
        evaluation="results/smoke/{name}-{digest}/seed_{seed}/evaluation.json",
        checkpoint="results/smoke/{name}-{digest}/seed_{seed}/checkpoint.pt",
        log="results/smoke/{name}-{digest}/seed_{seed}/train.log",
    log:
        "logs/smoke/{name}-{digest}/seed_{seed}.log",
    threads: PLAN.params.num_threads
    params:
        mode="smoke",
        config=config_of_smoke_run,
        length=length_of_smoke_run,
        run=digest_of_smoke_run,
        take=TAKE,
        python=PYTHON,
        params=params_options,
    message:
        "smoke run of {wildcards.name}, seed {wildcards.seed}"
    shell:
        "{params.take} {params.run} $(dirname {output.record:q}) > {log:q} 2>&1 ||"
        " {params.python} train --agent-config {params.config:q} --mode {params.mode}"
        " --seed {wildcards.seed} {params.length} --expect {wildcards.digest}"
        " --output $(dirname {output.record:q}) {params.params} > {log:q} 2>&1"


use rule smoke as train with:
    input:
        [],
    output:
        record="results/train/{name}-{digest}/seed_{seed}/run.json",
        config="results/train/{name}-{digest}/seed_{seed}/config.yaml",
        metrics="results/train/{name}-{digest}/seed_{seed}/metrics.csv",
        evaluation="results/train/{name}-{digest}/seed_{seed}/evaluation.json",
        checkpoint="results/train/{name}-{digest}/seed_{seed}/checkpoint.pt",
        log="results/train/{name}-{digest}/seed_{seed}/train.log",
    log:
        "logs/train/{name}-{digest}/seed_{seed}.log",
    resources:
        gpu=1,
    params:
        mode="full",
        config=config_of_long_run,
        length=length_of_long_run,
        run=digest_of_long_run,
        take=TAKE,
        python=PYTHON,
        params=params_options,
    message:
        "long run of {wildcards.name}, seed {wildcards.seed}"
