"""The validated plan of a sweep: its configs, runs and folders.

The path of every expensive output contains a digest, which shows whether its content is current.
Modification times are not used.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import heteromark
from heteromark.commands.cohort import cohort_key, reason_for_own_process
from heteromark.commands.fit import requirement_faults
from heteromark.commands.request import trained_frames
from heteromark.config.compose.composition import compose_run, load_params
from heteromark.config.compose.layers import PARAMS_FILE, ResolvedAgent, resolve_sweep
from heteromark.config.errors import ConfigError, Fault, config_error, naming_options
from heteromark.config.fields import Mode
from heteromark.config.files import read_mapping
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.params import ProjectParams
from heteromark.config.models.run import RunConfig
from heteromark.config.nested import flatten
from heteromark.runs.code import code_fingerprint
from heteromark.runs.digest import config_digest, covered_files, run_digest, trajectory_digest
from heteromark.runs.record import RESULTS, run_folder

RUNGS = RESULTS / "tables" / "rungs"


@dataclass(frozen=True)
class Candidate:
    """One distinct config in one mode, and its runs.

    `names` has several entries if several files resolve to the same config. They are one candidate,
    whose runs are trained once.
    """

    names: tuple[str, ...]
    config_digest: str
    config_path: str
    agent_id: str
    environment: str
    hyperparameters: dict[str, Any]
    frames: int  # frames that a run trains, in whole iterations
    folders: dict[int, Path]  # seed → run folder
    rung: int = 1
    digests: dict[int, str] = field(default_factory=dict)  # seed → digest of the run
    files: tuple[Path, ...] = ()  # the user's files in its identity
    cohort_key: tuple[Any, ...] = ()  # see `commands.cohort`
    reason_for_own_process: str | None = None

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def label(self) -> str:
        """All names of the config, as shown in tables and plots."""
        return " = ".join(self.names)


@dataclass(frozen=True)
class PlannedConfig:
    """A config with its candidates in both modes.

    Attributes:
        agent: the agent config.
        rungs: the smoke at the length of each rung; a single one without halving.
        full: the long run.
    """

    agent: AgentConfig
    rungs: tuple[Candidate, ...]
    full: Candidate

    @property
    def smoke(self) -> Candidate:
        """The smoke at full length."""
        return self.rungs[-1]

    def candidates(self, mode: Mode) -> tuple[Candidate, ...]:
        """Return the candidates of the config in one mode, shortest first."""
        return self.rungs if mode == "smoke" else (self.full,)


@dataclass(frozen=True)
class Plan:
    """All configs of the sweep, sorted by name, and the parameters they were planned from."""

    params: ProjectParams
    configs: tuple[PlannedConfig, ...]

    def candidates(self, mode: Mode) -> list[Candidate]:
        """Return the distinct configs in one mode, at full length."""
        return [config.candidates(mode)[-1] for config in self.configs]

    def find(self, mode: Mode, name: str, digest: str) -> tuple[PlannedConfig, Candidate]:
        """Return the config and the candidate whose run folder is named `{name}-{digest}`.

        Raises:
            LookupError: the plan has no such candidate; params or configs have changed.
        """
        known = []
        for config in self.configs:
            for candidate in config.candidates(mode):
                if (candidate.name, candidate.config_digest) == (name, digest):
                    return config, candidate
                known.append(f"{candidate.name}-{candidate.config_digest}")
        raise LookupError(
            f"the plan has no {mode} config {name}-{digest}; it has: {', '.join(known)}"
        )

    def run_in(self, folder: Path) -> tuple[Candidate, int]:
        """Return the candidate and the seed of the smoke run with this folder.

        Raises:
            LookupError: the plan has no such run; params or configs have changed.
        """
        for config in self.configs:
            for candidate in config.rungs:
                for seed, its_folder in candidate.folders.items():
                    if its_folder == folder:
                        return candidate, seed
        raise LookupError(f"the plan has no smoke run in {folder}")

    # --- successive halving ----------------------------------------------------------------------

    @property
    def decisions(self) -> dict[int, Path]:
        """The ranking file of each rung except the last. It decides which configs advance."""
        return {
            rung: RUNGS / f"rung_{rung}-{self.rung_digest(rung)}.json"
            for rung in range(1, len(self.params.rungs))
        }

    def entrants(self, rung: int) -> list[Candidate]:
        """Return the configs that train in a rung (from 1). Earlier decisions must exist."""
        configs: Sequence[PlannedConfig] = self.configs
        if rung > 1:
            advancing = survivors(self.decisions[rung - 1], self.params.sweep.halving.eta)
            configs = [config for config in configs if config.smoke.names in advancing]
        return [config.rungs[rung - 1] for config in configs]

    def trained_in_rungs(self) -> list[Candidate]:
        """Return all candidates that train in any rung, shortest first."""
        rungs = range(1, len(self.params.rungs) + 1)
        return [candidate for rung in rungs for candidate in self.entrants(rung)]

    def trained(self) -> list[Candidate]:
        """Return for each config the candidate of the last rung that it trained in."""
        furthest = {candidate.names: candidate for candidate in self.trained_in_rungs()}
        return [furthest[config.smoke.names] for config in self.configs]

    def rung_digest(self, rung: int) -> str:
        """Return the digest of all inputs of the decision after a rung."""
        rungs = [[_described(c) for c in config.rungs[:rung]] for config in self.configs]
        judged_by = []  # with halving, the selection settings decide which configs advance
        if len(self.params.rungs) > 1:
            judged_by = [self.params.sweep.halving.eta, self._selection_settings]
        return _digest([rungs, judged_by])

    @property
    def _selection_settings(self) -> dict[str, Any]:
        return self.params.selection.model_dump(mode="json")

    def selected(self, selection_file: Path) -> PlannedConfig:
        """Return the config that a selection.json names as its winner.

        Raises:
            LookupError: the plan has no such config; the selection belongs to another plan.
        """
        winner = json.loads(Path(selection_file).read_text(encoding="utf-8"))["winner"]
        return self.find("smoke", winner["name"], winner["config_digest"])[0]

    @property
    def tables_digest(self) -> str:
        """Digest of the inputs of results/tables: smoke runs, names, workflow code."""
        return self.rung_digest(len(self.params.rungs))

    @property
    def smoke_inputs(self) -> dict[str, Any]:
        """The smoke runs of the sweep."""
        rungs = zip(*(config.rungs for config in self.configs), strict=True)
        return {
            "digest": self.tables_digest,
            "smoke": [{"configs": runs_of(candidates)} for candidates in rungs],
        }

    @property
    def stage_inputs(self) -> dict[str, dict[str, Any]]:
        """Inputs of each stage of dvc.yaml, by stage name, without outputs of earlier stages."""
        return {
            "sweep": self.smoke_inputs,
            "select": {"digest": self.selection_digest, "selection": self._selection_settings},
            "train": {"full": runs_of(self.candidates("full"))},
            "publish": {"digest": self.publication_digest},
        }

    @property
    def selection_digest(self) -> str:
        """Digest of the inputs of results/selected."""
        return _digest([self.tables_digest, self._selection_settings])

    @property
    def publication_digest(self) -> str:
        """Digest of the inputs of results/model and results/report."""
        full = [_described(c) for c in self.candidates("full")]
        return _digest([self.selection_digest, full])


def survivors(decision: Path, eta: int) -> set[tuple[str, ...]]:
    """Return the names of the configs that advance after a rung: the best 1/`eta`, at least one.

    Args:
        decision: the rung's ranking, a `selection.json` of the configs that trained in it.
    """
    ranked = json.loads(Path(decision).read_text(encoding="utf-8"))["candidates"]
    eligible = [tuple(candidate["names"]) for candidate in ranked if candidate["eligible"]]
    return set(eligible[: max(1, len(ranked) // eta)])


def stamp_name(digest: str) -> str:
    """Return the name of the file that identifies the inputs of a results folder."""
    return f"inputs-{digest}.json"


def make_plan(
    root: Path = Path(),
    overrides: dict[str, Any] | None = None,
    typed: Mapping[str, str] | None = None,
) -> Plan:
    """Expand params.yaml and the agent configs that it names.

    A hyperparameter must affect at least one config if it is set for these configs: in params.yaml
    with the configs, or on the command line. A hyperparameter in params.yaml may affect none if the
    command line names the configs.

    Args:
        root: the project's folder.
        overrides: nested values that override params.yaml.
        typed: the option that set each override, by dotted key; None: Snakemake's --config.

    Raises:
        ConfigError: with every fault of every file, before anything runs.
    """
    given = flatten(overrides or {})
    with naming_options(typed or dict.fromkeys(given, "--config")):
        params = load_params(root, overrides)
        base = Path(params.sweep.base_config) if params.sweep.base_config else None
        must_reach = given if "sweep.agents" in given else None
        agents = resolve_sweep(params.sweep.agents, params, root, None, base, must_reach)
        return plan_of(agents, params, root)


def plan_of(agents: Sequence[ResolvedAgent], params: ProjectParams, root: Path = Path()) -> Plan:
    """Return the plan for configs that are already resolved."""
    grouped: dict[str, list[tuple[ResolvedAgent, RunConfig]]] = {}
    faults = list(_halving_faults(params))
    for resolved in sorted(agents, key=lambda resolved: resolved.agent.short_name):
        try:
            smoke = _composed(resolved, params, root, "smoke", params.rungs[-1])
            grouped.setdefault(config_digest(smoke), []).append((resolved, smoke))
        except ConfigError as error:
            faults.extend(error.faults)
    if not faults and grouped:
        _, run_config = next(iter(grouped.values()))[0]
        faults.extend(requirement_faults(run_config))
    if faults:
        raise config_error(faults)
    return Plan(params, tuple(_planned(members, params, root) for members in grouped.values()))


def _halving_faults(params: ProjectParams) -> Iterator[Fault]:
    halving, (*shorter, longest) = params.sweep.halving, params.rungs
    if params.sweep.strategy == "halving" and not shorter:
        yield Fault(
            PARAMS_FILE,
            f"gives only one rung; halving needs at least two. Set it to at most {longest:,} / eta "
            f"= {longest // halving.eta:,}",
            "sweep.halving.min_frames",
            halving.min_frames,
        )


def _composed(
    resolved: ResolvedAgent,
    params: ProjectParams,
    root: Path,
    mode: Mode,
    frames: int,
) -> RunConfig:
    return compose_run(
        resolved.agent,
        params,
        mode,
        params.budget(mode).seeds[0],
        root,
        overrides={"training": {"total_frames": frames}},
        agent_file=str(resolved.path),
    )


def _planned(
    members: list[tuple[ResolvedAgent, RunConfig]], params: ProjectParams, root: Path
) -> PlannedConfig:
    resolved, smoke = members[0]
    names = tuple(member.agent.short_name for member, _ in members)

    def candidate(config: RunConfig, rung: int = 1) -> Candidate:
        digest = config_digest(config)
        return Candidate(
            names=names,
            config_digest=digest,
            config_path=str(resolved.path),
            agent_id=resolved.agent.agent_id,
            environment=params.sweep.environment,
            hyperparameters=resolved.agent.hyperparameters(),
            frames=trained_frames(config),
            folders={
                seed: run_folder(config.mode, names[0], digest, seed)
                for seed in params.budget(config.mode).seeds
            },
            digests={
                seed: run_digest(config.model_copy(update={"seed": seed}))
                for seed in params.budget(config.mode).seeds
            },
            rung=rung,
            files=tuple(covered_files(config)),
            cohort_key=cohort_key(config),
            reason_for_own_process=reason_for_own_process(config),
        )

    batch = smoke.collector.frames_per_batch
    *ends, longest = (-(-frames // batch) for frames in params.rungs)
    if ends:
        lengths = [*(end * batch for end in ends), smoke.training.total_frames]
        rungs = [_composed(resolved, params, root, "smoke", frames) for frames in lengths]
    else:
        rungs = [smoke]
    if len({*ends, longest}) < len(rungs):
        raise ConfigError.single(
            PARAMS_FILE,
            f"gives rungs of {', '.join(map(str, ends))} and {longest} iterations of {batch:,} "
            f"frames with {names[0]} ({resolved.path}). Each rung must be longer than the previous "
            "one: raise it or lower n_steps",
            params.sweep.halving.min_frames,
            "sweep.halving.min_frames",
        )
    if len({trajectory_digest(config) for config in rungs}) > 1:
        raise ConfigError.single(
            PARAMS_FILE,
            f"needs runs that longer runs can continue, but runs of {names[0]} ({resolved.path}) "
            "depend on their length: the learning rate changes over the whole run (set "
            "scheduler.decay: none), or the algorithm is user-defined (set sweep.strategy: grid)",
            params.sweep.strategy,
            "sweep.strategy",
        )
    return PlannedConfig(
        resolved.agent,
        tuple(candidate(config, number) for number, config in enumerate(rungs, start=1)),
        candidate(_composed(resolved, params, root, "full", params.full.total_frames)),
    )


def unnoticed_files(plan: Plan, dvc_file: Path = Path("dvc.yaml")) -> list[Fault]:
    """Return a fault per file that affects a run and is no dependency of DVC's stage plan.

    DVC would not run the stages again if such a file changed. Without a dvc.yaml there is none.
    """
    if not dvc_file.is_file():
        return []
    stage = read_mapping(dvc_file).get("stages", {}).get("plan", {})
    tracked = [Path(dependency).resolve() for dependency in stage.get("deps", ())]
    candidates = [config.full for config in plan.configs]
    used = {file.resolve() for candidate in candidates for file in candidate.files}
    return [
        Fault(
            str(dvc_file),
            f"lacks {file}, which affects runs, so `dvc repro` would not notice its changes; add "
            "it, or move the file to environments/ or extensions/",
            "stages.plan.deps",
        )
        for file in sorted(used)
        if not any(file.is_relative_to(path) for path in tracked)
    ]


def runs_of(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """Return config, digest, frames and run folders of each candidate, by label."""
    return {
        candidate.label: {
            "config": candidate.config_path,
            "digest": candidate.config_digest,
            "frames": candidate.frames,
            "runs": [folder.as_posix() for folder in candidate.folders.values()],
        }
        for candidate in candidates
    }


def _described(candidate: Candidate) -> list[Any]:
    return [list(candidate.names), candidate.config_digest, sorted(candidate.folders)]


def _digest(content: Any) -> str:
    text = json.dumps([content, _workflow_fingerprint()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@functools.cache
def _workflow_fingerprint() -> str:
    return code_fingerprint(Path(heteromark.__file__).parent.joinpath("workflow").rglob("*.py"))
