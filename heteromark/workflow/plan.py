"""The plan of a sweep: which configs, which runs, which folders. Made at parse time, validated.

Every expensive output carries a digest in its path, so that a path says whether its content is
current; nothing here looks at modification times.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import heteromark
from heteromark.config.agent import AgentConfig
from heteromark.config.compose import compose_run, load_params
from heteromark.config.errors import ConfigError, Fault, config_error
from heteromark.config.fields import Mode
from heteromark.config.layers import ResolvedAgent, resolve_sweep
from heteromark.config.params import ProjectParams
from heteromark.config.schema import RunConfig
from heteromark.runs.digest import code_fingerprint, config_digest
from heteromark.runs.record import run_folder
from heteromark.training.requirements import requirement_faults


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
    folders: dict[int, Path]  # seed → run folder

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def label(self) -> str:
        """All names of the config, for tables and plots."""
        return " = ".join(self.names)


@dataclass(frozen=True)
class PlannedConfig:
    """A candidate in both modes, with what is needed to train it."""

    agent: AgentConfig
    smoke: Candidate
    full: Candidate

    def candidate(self, mode: Mode) -> Candidate:
        return self.smoke if mode == "smoke" else self.full


@dataclass(frozen=True)
class Plan:
    """All configs of the sweep, in order of their names, and the parameters they follow from."""

    params: ProjectParams
    configs: tuple[PlannedConfig, ...]

    def candidates(self, mode: Mode) -> list[Candidate]:
        """The distinct configs in one mode."""
        return [config.candidate(mode) for config in self.configs]

    def find(self, mode: Mode, name: str, digest: str) -> PlannedConfig:
        """The config whose run folder is called `{name}-{digest}`.

        Raises:
            LookupError: the plan has none; it was made from other params or configs.
        """
        for config in self.configs:
            candidate = config.candidate(mode)
            if (candidate.name, candidate.config_digest) == (name, digest):
                return config
        known = ", ".join(f"{c.name}-{c.config_digest}" for c in self.candidates(mode))
        raise LookupError(f"the plan has no {mode} config {name}-{digest}; it has: {known}")

    def selected(self, selection_file: Path) -> PlannedConfig:
        """The config that a selection.json names as its winner.

        Raises:
            LookupError: the plan has no such config; the selection was made for another.
        """
        winner = json.loads(Path(selection_file).read_text(encoding="utf-8"))["winner"]
        return self.find("smoke", winner["name"], winner["config_digest"])

    @property
    def tables_digest(self) -> str:
        """What results/tables follows from: the smoke runs, their names, the workflow's code."""
        return _digest([_described(c) for c in self.candidates("smoke")])

    @property
    def smoke_inputs(self) -> dict[str, Any]:
        """Which smoke runs the sweep consists of, for people and for DVC to depend on."""
        return {"digest": self.tables_digest, "smoke": runs_of(self.candidates("smoke"))}

    @property
    def selection_digest(self) -> str:
        """What results/selected follows from."""
        return _digest([self.tables_digest, self.params.selection.model_dump(mode="json")])

    @property
    def publication_digest(self) -> str:
        """What results/model and results/report follow from."""
        full = [_described(c) for c in self.candidates("full")]
        return _digest([self.selection_digest, full])


def stamp_name(digest: str) -> str:
    """Name of the file that says what a results folder with constant names follows from."""
    return f"inputs-{digest}.json"


def make_plan(root: Path = Path(), overrides: dict[str, Any] | None = None) -> Plan:
    """Expand params.yaml and the agent configs that it names.

    Args:
        root: the project's folder.
        overrides: nested values that win over params.yaml.

    Raises:
        ConfigError: every fault of every file, before anything runs.
    """
    params = load_params(root, overrides)
    base = Path(params.sweep.base_config) if params.sweep.base_config else None
    agents = resolve_sweep(params.sweep.agents, params, root, base=base)
    return plan_of(agents, params, root)


def plan_of(agents: Sequence[ResolvedAgent], params: ProjectParams, root: Path = Path()) -> Plan:
    """The plan for configs that are resolved already."""
    grouped: dict[str, list[tuple[ResolvedAgent, RunConfig]]] = {}
    faults: list[Fault] = []
    for resolved in sorted(agents, key=lambda resolved: resolved.agent.short_name):
        try:
            smoke = compose_run(
                resolved.agent,
                params,
                "smoke",
                params.smoke.seeds[0],
                root,
                agent_file=str(resolved.path),
            )
            grouped.setdefault(config_digest(smoke), []).append((resolved, smoke))
        except ConfigError as error:
            faults.extend(error.faults)
    if not faults and grouped:
        _, run_config = next(iter(grouped.values()))[0]
        faults.extend(requirement_faults(run_config))
    if faults:
        raise config_error(faults)
    return Plan(
        params,
        tuple(_planned(digest, members, params, root) for digest, members in grouped.items()),
    )


def _planned(
    smoke_digest: str,
    members: list[tuple[ResolvedAgent, RunConfig]],
    params: ProjectParams,
    root: Path,
) -> PlannedConfig:
    resolved = members[0][0]
    names = tuple(member.agent.short_name for member, _ in members)
    full = compose_run(
        resolved.agent, params, "full", params.full.seeds[0], root, agent_file=str(resolved.path)
    )
    digests: dict[Mode, str] = {"smoke": smoke_digest, "full": config_digest(full)}
    candidates = {
        mode: Candidate(
            names=names,
            config_digest=digest,
            config_path=str(resolved.path),
            agent_id=resolved.agent.agent_id,
            environment=params.sweep.environment,
            hyperparameters=resolved.agent.hyperparameters(),
            folders={
                seed: run_folder(mode, names[0], digest, seed) for seed in params.budget(mode).seeds
            },
        )
        for mode, digest in digests.items()
    }
    return PlannedConfig(resolved.agent, candidates["smoke"], candidates["full"])


def runs_of(candidates: list[Candidate]) -> dict[str, Any]:
    return {
        candidate.label: {
            "config": candidate.config_path,
            "digest": candidate.config_digest,
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
