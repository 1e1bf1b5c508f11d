# The cheap steps: tables, selection, publication, report. All inputs are ancient(), so Snakemake
# ignores modification times and uses the digest in the stamp's name.


# Runs after each rung except the last, with sweep.strategy "halving". A grid has only one rung.
checkpoint rung:
    input:
        ancient(rung_inputs),
    output:
        f"{RUNGS}/rung_{{rung}}-{{digest}}.json",
    log:
        "logs/rungs/rung_{rung}-{digest}.log",
    params:
        python=PYTHON,
        params=params_options,
    message:
        "decision after rung {wildcards.rung}"
    shell:
        "{params.python} workflow rung --expect {wildcards.digest} {wildcards.rung} {output:q}"
        " {params.params} 2>&1 | tee {log:q}"


rule aggregate:
    input:
        ancient(tables_inputs),
    output:
        stamp=TABLES_STAMP,
        summary=report(
            "results/tables/summary.csv",
            caption="../report/summary.rst",
            category="1 Sweep",
            labels={"what": "one row per config"},
        ),
        runs=report(
            "results/tables/runs.csv",
            caption="../report/runs.rst",
            category="1 Sweep",
            labels={"what": "one row per run"},
        ),
        learning_curves=report(
            "results/tables/learning_curves.svg",
            caption="../report/learning_curves.rst",
            category="1 Sweep",
            labels={"what": "learning curves"},
        ),
        curves="results/tables/curves.csv",
        metrics="results/tables/metrics.json",
    log:
        "logs/aggregate.log",
    params:
        digest=PLAN.tables_digest,
        python=PYTHON,
        params=params_options,
    message:
        "tables of the smoke runs"
    shell:
        "{params.python} workflow aggregate --expect {params.digest}"
        " $(dirname {output.stamp:q}) {params.params} > {log:q} 2>&1"


checkpoint select:
    input:
        ancient(all_decisions),
        tables=ancient(TABLES_STAMP),
    output:
        **BRACKET,
        stamp=SELECTION_STAMP,
        selection=report(
            "results/selected/selection.json",
            caption="../report/selection.rst",
            category="2 Selection",
            labels={"what": "every candidate with rank and reason"},
        ),
        picture=report(
            "results/selected/selection.svg",
            caption="../report/selection.rst",
            category="2 Selection",
            labels={"what": "scores with intervals"},
        ),
        agent=report(
            "results/selected/agent.yaml",
            caption="../report/agent.rst",
            category="2 Selection",
            labels={"what": "the winner's config"},
        ),
    log:
        "logs/select.log",
    params:
        digest=PLAN.selection_digest,
        python=PYTHON,
        params=params_options,
    message:
        "selection of the winner"
    shell:
        "{params.python} workflow select --expect {params.digest}"
        " $(dirname {input.tables:q}) $(dirname {output.stamp:q}) {params.params} 2>&1 | tee {log:q}"


rule publish:
    input:
        ancient(sweep_inputs),
        ancient(selected_run_records),
        tables=ancient(TABLES_STAMP),
        selection=ancient(SELECTION_STAMP),
    output:
        stamp=MODEL_STAMP,
        checkpoint="results/model/checkpoint.pt",
        config="results/model/config.yaml",
        agent="results/model/agent.yaml",
        record="results/model/run.json",
        evaluation="results/model/evaluation.json",
        overview=report(
            "results/model/overview.html",
            caption="../report/overview.rst",
            category="0 Overview",
            labels={"what": "the experiment and its result"},
        ),
        metrics=report(
            "results/model/metrics.json",
            caption="../report/model.rst",
            category="3 Long run",
            labels={"what": "evaluation of the published model"},
        ),
        runs=report(
            "results/model/long_runs.csv",
            caption="../report/runs.rst",
            category="3 Long run",
            labels={"what": "one row per long run"},
        ),
        picture=report(
            "results/model/long_run.svg",
            caption="../report/long_run.rst",
            category="3 Long run",
            labels={"what": "learning curve"},
        ),
        rank_check=report(
            "results/model/rank_check.json",
            caption="../report/rank_check.rst",
            category="3 Long run",
            labels={"what": "did the smoke predict the long run?"},
        ),
        dag=report(
            "results/model/dag.svg",
            caption="../report/dag.rst",
            category="4 Workflow",
            labels={"what": "the steps and their runs"},
        ),
    log:
        "logs/publish.log",
    params:
        digest=PLAN.publication_digest,
        python=PYTHON,
        params=params_options,
    message:
        "publication of the model"
    shell:
        "{params.python} workflow publish --expect {params.digest}"
        " $(dirname {input.tables:q}) $(dirname {input.selection:q})"
        " $(dirname {output.stamp:q}) {params.params} 2>&1 | tee {log:q}"


# Snakemake can only report a finished workflow. --nolock, because this Snakemake holds the lock.
rule report:
    input:
        ancient(TABLES_STAMP),
        ancient(SELECTION_STAMP),
        model=ancient(MODEL_STAMP),
    output:
        html="results/report.html",
        stamp=REPORT_STAMP,
    log:
        "logs/report.log",
    params:
        python=shlex.quote(sys.executable),
        config=config_options,
    message:
        "report of the workflow"
    shell:
        "rm -f $(dirname {output.stamp:q})/inputs-*.json;"
        " {params.python} -m snakemake --nolock --quiet all --report {output.html:q}"
        " {params.config} -- published > {log:q} 2>&1"
        " && cp {input.model:q} {output.stamp:q}"
