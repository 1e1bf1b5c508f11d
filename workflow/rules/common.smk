# The plan, made once when Snakemake reads the Snakefile. Every fault in params.yaml or a config is
# reported here, before any job runs. `--config key=value` overrides params.yaml.

import json
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(workflow.current_basedir.join("../..")))

from heteromark.config.errors import ConfigError
from heteromark.config.files import retyped
from heteromark.runs.record import RECORD_FILE
from heteromark.workflow.cohorts import cohorts, notice_of_separate_processes
from heteromark.workflow.plan import RUNGS, make_plan, stamp_name


def plan_or_fail(overrides):
    try:
        return make_plan(overrides=overrides)
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


PLAN = plan_or_fail(retyped(config))
TAKE = f"{shlex.quote(sys.executable)} -m heteromark.runs.take"
PYTHON = f"{shlex.quote(sys.executable)} -m heteromark"
OVERRIDES = [shlex.quote(f"{key}={json.dumps(value)}") for key, value in retyped(config).items()]

TABLES_STAMP = f"results/tables/{stamp_name(PLAN.tables_digest)}"
SELECTION_STAMP = f"results/selected/{stamp_name(PLAN.selection_digest)}"
SELECTION = Path("results/selected/selection.json")
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
    cohort=r"[0-9a-f]{12}",
    processes=r"\d+",


# These are functions because Snakemake would read braces in a plain string as wildcards.
def params_options(wildcards):
    return " ".join(f"--param {override}" for override in OVERRIDES)


def config_options(wildcards):
    return " ".join(["--config", *OVERRIDES] if OVERRIDES else [])


def records_of(candidate):
    return [f"{folder}/{RECORD_FILE}" for folder in candidate.folders.values()]


def length_of(candidate):
    return f"--total-timesteps {candidate.frames}"


# What a step reads is in its inputs: a file that is not may be missing, or be written meanwhile.
# A decision or selection that exists is used without its checkpoint. The digest in its name, or in
# its stamp's, says that it belongs to this plan; and Snakemake asks for a checkpoint only once if
# the checkpoint first seems necessary and then is not.
def decisions_before(rung):
    """Return the decisions after all earlier rungs; await those that are missing."""
    paths = []
    for earlier in range(1, rung):
        path = PLAN.decisions[earlier]
        if not path.exists():
            checkpoints.rung.get(rung=earlier, digest=PLAN.rung_digest(earlier))
        paths.append(str(path))
    return paths


def all_decisions(wildcards):
    return decisions_before(len(PLAN.decisions) + 1)


def cohort_of_smoke_run(wildcards):
    folder = Path(f"results/smoke/{wildcards.name}-{wildcards.digest}/seed_{wildcards.seed}")
    rung = PLAN.find("smoke", wildcards.name, wildcards.digest)[1].rung
    # When its cohort trains others, a run that exists is not copied again.
    undecided = [path for path in list(PLAN.decisions.values())[: rung - 1] if not path.exists()]
    if undecided or (folder / RECORD_FILE).exists():
        return []
    processes = max(1, (workflow.cores or 1) // PLAN.params.num_threads)
    for name, folders in cohorts(PLAN, rung, processes).items():
        if folder in folders:
            # a job on another machine, which may have another number of cores, must find its cohort
            return [f"logs/cohorts/rung_{rung}-processes_{processes}-{name}.done"]
    return []


def folders_of_cohort(wildcards):
    of_rung = cohorts(PLAN, int(wildcards.rung), int(wildcards.processes))
    return [str(folder) for folder in of_rung[wildcards.cohort]]


def records_of_all(candidates):
    return [record for candidate in candidates for record in records_of(candidate)]


def rung_inputs(wildcards):
    rung = int(wildcards.rung)
    return [*decisions_before(rung), *records_of_all(PLAN.entrants(rung))]


def tables_inputs(wildcards):
    return [*all_decisions(wildcards), *records_of_all(PLAN.trained())]


def sweep_inputs(wildcards):
    return [*all_decisions(wildcards), *records_of_all(PLAN.trained_in_rungs())]


def selected_run_records(wildcards):
    if not (Path(SELECTION_STAMP).exists() and SELECTION.exists()):
        checkpoints.select.get()
    return records_of(PLAN.selected(SELECTION).full)


def config_of_smoke_run(wildcards):
    return PLAN.find("smoke", wildcards.name, wildcards.digest)[1].config_path


def digest_of_run(candidate, seed):
    """Return the digest of a run; "unplanned" for a seed that is not in params.yaml."""
    return candidate.digests.get(int(seed), "unplanned")


def digest_of_smoke_run(wildcards):
    return digest_of_run(PLAN.find("smoke", wildcards.name, wildcards.digest)[1], wildcards.seed)


def digest_of_long_run(wildcards):
    return digest_of_run(PLAN.find("full", wildcards.name, wildcards.digest)[1], wildcards.seed)


def length_of_smoke_run(wildcards):
    return length_of(PLAN.find("smoke", wildcards.name, wildcards.digest)[1])


def config_of_long_run(wildcards):
    return PLAN.find("full", wildcards.name, wildcards.digest)[1].config_path


def length_of_long_run(wildcards):
    return length_of(PLAN.find("full", wildcards.name, wildcards.digest)[1])
