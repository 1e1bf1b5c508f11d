# The plan, made once when Snakemake reads the Snakefile. Every fault in params.yaml or a config is
# reported here, before any job runs. `--config key=value` overrides params.yaml.

import json
import shlex
import sys

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(workflow.current_basedir.join("../..")))

from heteromark.config.errors import ConfigError
from heteromark.config.files import retyped
from heteromark.runs.record import RECORD_FILE
from heteromark.workflow.plan import RUNGS, make_plan, stamp_name


def plan_or_fail(overrides):
    try:
        return make_plan(overrides=overrides)
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


PLAN = plan_or_fail(retyped(config))
PYTHON = f"{shlex.quote(sys.executable)} -m heteromark"
OVERRIDES = [shlex.quote(f"{key}={json.dumps(value)}") for key, value in retyped(config).items()]

TABLES_STAMP = f"results/tables/{stamp_name(PLAN.tables_digest)}"
SELECTION_STAMP = f"results/selected/{stamp_name(PLAN.selection_digest)}"
MODEL_STAMP = f"results/model/{stamp_name(PLAN.publication_digest)}"
REPORT_STAMP = f"results/report/{stamp_name(PLAN.publication_digest)}"


# An output of rule select, only with halving.
BRACKET = {}
if PLAN.decisions:
    BRACKET["bracket"] = report(
        "results/selected/bracket.svg",
        caption="../report/bracket.rst",
        category="2 Selection",
        labels={"what": "configs that advanced after each rung"},
    )


wildcard_constraints:
    name=r"[A-Za-z][A-Za-z0-9_-]*",
    digest=r"[0-9a-f]{12}",
    seed=r"\d+",
    rung=r"\d+",


# These are functions because Snakemake would read braces in a plain string as wildcards.
def params_options(wildcards):
    return " ".join(f"--param {override}" for override in OVERRIDES)


def config_options(wildcards):
    return " ".join(["--config", *OVERRIDES] if OVERRIDES else [])


def records_of(candidate):
    return [f"{folder}/{RECORD_FILE}" for folder in candidate.folders.values()]


def length_of(candidate):
    return f"--total-timesteps {candidate.frames}"


def await_decisions(number):
    for rung in range(1, number + 1):
        checkpoints.rung.get(rung=rung, digest=PLAN.rung_digest(rung))


def rung_run_records(wildcards):
    rung = int(wildcards.rung)
    await_decisions(rung - 1)
    return [record for candidate in PLAN.entrants(rung) for record in records_of(candidate)]


def smoke_run_records(wildcards):
    await_decisions(len(PLAN.decisions))
    return [record for candidate in PLAN.trained() for record in records_of(candidate)]


def selected_run_records(wildcards):
    selected = checkpoints.select.get().output.selection
    return records_of(PLAN.selected(selected).full)


def config_of_smoke_run(wildcards):
    return PLAN.find("smoke", wildcards.name, wildcards.digest)[1].config_path


def length_of_smoke_run(wildcards):
    return length_of(PLAN.find("smoke", wildcards.name, wildcards.digest)[1])


def config_of_long_run(wildcards):
    return PLAN.find("full", wildcards.name, wildcards.digest)[1].config_path


def length_of_long_run(wildcards):
    return length_of(PLAN.find("full", wildcards.name, wildcards.digest)[1])
