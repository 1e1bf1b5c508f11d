"""The plan of a sweep: which configs, which runs, which folders. Made at parse time, validated.

Every expensive output carries a digest in its path, so that a path says whether its content is
current; nothing here looks at modification times.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import heteromark
from heteromark.commands.fit import requirement_faults
from heteromark.commands.request import trained_frames
from heteromark.config.compose.composition import PARAMS_FILE, compose_run, load_params
from heteromark.config.compose.layers import ResolvedAgent, resolve_sweep
from heteromark.config.errors import ConfigError, Fault, config_error, naming_options
from heteromark.config.fields import Mode
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.params import ProjectParams
from heteromark.config.models.run import RunConfig
from heteromark.config.nested import flatten
from heteromark.runs.code import code_fingerprint
from heteromark.runs.digest import config_digest, trajectory_digest
from heteromark.runs.record import RESULTS, run_folder

RUNGS = RESULTS / "tables" / "rungs"


@dataclass(frozen=True)
class Candidate:
    """One distinct config in one mode, and its runs.

    `names` has more than one entry when several files resolve to the same config; then they are
    one candidate, and its runs are trained once.
    """

    names: tuple[str, ...]
    config_digest: str
    config_path: str
    agent_id: str
    environment: str
    hyperparameters: dict[str, Any]
    frames: int  # that a run trains: whole iterations
    checkpoints_after: tuple[int, ...]  # ends of the shorter rungs
    folders: dict[int, Path]  # seed → run folder
    rung: int = 1

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def label(self) -> str:
        """All names of the config, for tables and plots."""
        return " = ".join(self.names)


@dataclass(frozen=True)
class PlannedConfig:
    """A candidate in both modes, with what is needed to train it.

    Attributes:
        rungs: the smoke, as far as it goes after each rung; one without halving.
    """

    agent: AgentConfig
    rungs: tuple[Candidate, ...]
    full: Candidate

    @property
    def smoke(self) -> Candidate:
        """The whole smoke."""
        return self.rungs[-1]

    def candidates(self, mode: Mode) -> tuple[Candidate, ...]:
        """The config in one mode, shorter ones first."""
        return self.rungs if mode == "smoke" else (self.full,)


@dataclass(frozen=True)
class Plan:
    """All configs of the sweep, in order of their names, and the parameters they follow from."""

    params: ProjectParams
    configs: tuple[PlannedConfig, ...]

    def candidates(self, mode: Mode) -> list[Candidate]:
        """The distinct configs in one mode, at full length."""
        return [config.candidates(mode)[-1] for config in self.configs]

    def find(self, mode: Mode, name: str, digest: str) -> tuple[PlannedConfig, Candidate]:
        """The config whose run folder is called `{name}-{digest}`, and which of its candidates.

        Raises:
            LookupError: the plan has none; it was made from other params or configs.
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

    # --- successive halving ----------------------------------------------------------------------

    @property
    def decisions(self) -> dict[int, Path]:
        """The files that say, after each rung but the last, which configs go on."""
        return {
            rung: RUNGS / f"rung_{rung}-{self.rung_digest(rung)}.json"
            for rung in range(1, len(self.params.rungs))
        }

    def entrants(self, rung: int) -> list[Candidate]:
        """The configs that train in a rung, from 1; the decisions before it must have been made."""
        configs = self.configs
        if rung > 1:
            going_on = survivors(self.decisions[rung - 1], self.params.sweep.halving.eta)
            configs = [config for config in configs if config.smoke.names in going_on]
        return [config.rungs[rung - 1] for config in configs]

    def trained_in_rungs(self) -> list[Candidate]:
        """What has been trained after all rungs, shorter runs first."""
        rungs = range(1, len(self.params.rungs) + 1)
        return [candidate for rung in rungs for candidate in self.entrants(rung)]

    def trained(self) -> list[Candidate]:
        """What has been trained after all rungs: each config as far as it came."""
        furthest = {candidate.names: candidate for candidate in self.trained_in_rungs()}
        return [furthest[config.smoke.names] for config in self.configs]

    def rung_digest(self, rung: int) -> str:
        """What the decision after a rung follows from."""
        rungs = [[_described(c) for c in config.rungs[:rung]] for config in self.configs]
        judged_by = []  # with halving, who is in the tables depends on the selection's measure
        if len(self.params.rungs) > 1:
            judged_by = [self.params.sweep.halving.eta, self._selection_settings]
        return _digest([rungs, judged_by])

    @property
    def _selection_settings(self) -> dict[str, Any]:
        return self.params.selection.model_dump(mode="json")

    def selected(self, selection_file: Path) -> PlannedConfig:
        """The config that a selection.json names as its winner.

        Raises:
            LookupError: the plan has no such config; the selection was made for another.
        """
        winner = json.loads(Path(selection_file).read_text(encoding="utf-8"))["winner"]
        return self.find("smoke", winner["name"], winner["config_digest"])[0]

    @property
    def tables_digest(self) -> str:
        """What results/tables follows from: the smoke runs, their names, the workflow's code."""
        return self.rung_digest(len(self.params.rungs))

    @property
    def smoke_inputs(self) -> dict[str, Any]:
        """Which smoke runs the sweep consists of."""
        rungs = zip(*(config.rungs for config in self.configs), strict=True)
        return {
            "digest": self.tables_digest,
            "smoke": [{"configs": runs_of(candidates)} for candidates in rungs],
        }

    @property
    def stage_inputs(self) -> dict[str, dict[str, Any]]:
        """What each stage of dvc.yaml follows from besides the stages before it, by its name."""
        return {
            "sweep": self.smoke_inputs,
            "select": {"digest": self.selection_digest, "selection": self._selection_settings},
            "train": {"full": runs_of(self.candidates("full"))},
            "publish": {"digest": self.publication_digest},
        }

    @property
    def selection_digest(self) -> str:
        """What results/selected follows from."""
        return _digest([self.tables_digest, self._selection_settings])

    @property
    def publication_digest(self) -> str:
        """What results/model and results/report follow from."""
        full = [_described(c) for c in self.candidates("full")]
        return _digest([self.selection_digest, full])


def survivors(decision: Path, eta: int) -> set[tuple[str, ...]]:
    """Names of the configs that go on after a rung: the best in `eta`, and at least one.

    Args:
        decision: the rung's ranking, a `selection.json` of the configs that trained in it.
    """
    ranked = json.loads(Path(decision).read_text(encoding="utf-8"))["candidates"]
    eligible = [tuple(candidate["names"]) for candidate in ranked if candidate["eligible"]]
    return set(eligible[: max(1, len(ranked) // eta)])


def stamp_name(digest: str) -> str:
    """Name of the file that says what a results folder with constant names follows from."""
    return f"inputs-{digest}.json"


def make_plan(
    root: Path = Path(),
    overrides: dict[str, Any] | None = None,
    typed: Mapping[str, str] | None = None,
) -> Plan:
    """Expand params.yaml and the agent configs that it names.

    A hyperparameter must reach one of the configs if it was set for them: together with them in
    params.yaml, or on the command line. One in params.yaml need not reach configs that a command
    line names instead.

    Args:
        root: the project's folder.
        overrides: nested values that win over params.yaml.
        typed: the options that gave the overrides, by dotted key; None: Snakemake's --config.

    Raises:
        ConfigError: every fault of every file, before anything runs.
    """
    given = flatten(overrides or {})
    with naming_options(typed or dict.fromkeys(given, "--config")):
        params = load_params(root, overrides)
        base = Path(params.sweep.base_config) if params.sweep.base_config else None
        must_reach = given if "sweep.agents" in given else None
        agents = resolve_sweep(params.sweep.agents, params, root, None, base, must_reach)
        return plan_of(agents, params, root)


def plan_of(agents: Sequence[ResolvedAgent], params: ProjectParams, root: Path = Path()) -> Plan:
    """The plan for configs that are resolved already."""
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
            f"makes a single rung; for a second one it must be at most {longest:,} / eta = "
            f"{longest // halving.eta:,}",
            "sweep.halving.min_frames",
            halving.min_frames,
        )


def _composed(
    resolved: ResolvedAgent,
    params: ProjectParams,
    root: Path,
    mode: Mode,
    frames: int,
    ends: Sequence[int] = (),
) -> RunConfig:
    training = {"total_frames": frames} | ({"checkpoints_after": [*ends]} if ends else {})
    return compose_run(
        resolved.agent,
        params,
        mode,
        params.budget(mode).seeds[0],
        root,
        overrides={"training": training},
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
            checkpoints_after=tuple(config.training.checkpoints_after),
            folders={
                seed: run_folder(config.mode, names[0], digest, seed)
                for seed in params.budget(config.mode).seeds
            },
            rung=rung,
        )

    batch = smoke.collector.frames_per_batch
    *ends, longest = (-(-frames // batch) for frames in params.rungs)
    if ends:
        lengths = [*(end * batch for end in ends), smoke.training.total_frames]
        rungs = [_composed(resolved, params, root, "smoke", frames, ends) for frames in lengths]
    else:
        rungs = [smoke]
    if len({*ends, longest}) < len(rungs):
        raise ConfigError.single(
            PARAMS_FILE,
            f"makes rungs of {', '.join(map(str, ends))} and {longest} iterations of {batch:,} "
            f"frames with {names[0]} ({resolved.path}); raise it, so that each is longer than the "
            "one before, or lower n_steps",
            params.sweep.halving.min_frames,
            "sweep.halving.min_frames",
        )
    if len({trajectory_digest(config) for config in rungs}) > 1:
        raise ConfigError.single(
            PARAMS_FILE,
            f"needs runs that can be gone on with, and {names[0]} ({resolved.path}) cannot be: its "
            "learning rate falls over the whole run (set scheduler.decay: none), or its algorithm "
            "is your own. Set sweep.strategy: grid",
            params.sweep.strategy,
            "sweep.strategy",
        )
    return PlannedConfig(
        resolved.agent,
        tuple(candidate(config, number) for number, config in enumerate(rungs, start=1)),
        candidate(_composed(resolved, params, root, "full", params.full.total_frames)),
    )


def runs_of(candidates: list[Candidate]) -> dict[str, Any]:
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
