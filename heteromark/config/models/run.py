"""The typed, immutable model of a resolved run config.

This model and those of agent configs (`agent`) and components (`components`) validate every value
that a run depends on before any code uses it. They are also the source of the JSON schemas in
`config/schema/`, with which editors complete and check the YAML. Units: learning rates are per
optimizer step; a frame is one environment step of all agents.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, Self

from pydantic import Field

from heteromark.config.fields import (
    Device,
    Frozen,
    Mode,
    OptimizerType,
    PolicyType,
    Seed,
    batch_size_conflict,
    nearest_divisors,
    nearest_multiples,
)
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.algorithms import (
    ALGORITHM_OF_LOSS,
    LLM,
    NETWORKS,
    ROW_OF,
    LossType,
    algorithms_of,
    kind_of_environment,
)
from heteromark.config.models.components import (
    CollectorConfig,
    EnvironmentConfig,
    EvaluationConfig,
    LoggerConfig,
    LossConfig,
    OptimizerConfig,
    PolicyConfig,
    ReplayBufferConfig,
    TrainingConfig,
)
from heteromark.config.models.llm import (
    SHARED,
    GenerationConfig,
    GroupRelativeConfig,
    ModelConfig,
    SchedulerConfig,
)
from heteromark.config.models.tasks import TASK_ROLES
from heteromark.config.nested import value_at

# Keys with only one valid value in VMAS, and why.
_WITH_VMAS: dict[str, tuple[object, str]] = {
    "environment.task": (
        None,
        "must be null with env_type vmas; environment.kwargs names the scenario",
    ),
    "environment.num_workers": (
        0,
        "must be 0 with env_type vmas, which steps all copies in one batch",
    ),
    "environment.opponent.kind": ("self", "must be self with env_type vmas: all agents learn"),
    "environment.state": (False, "must be false with env_type vmas, which has no global state"),
}
# Keys with only one valid value in Skirmish, and why.
_WITH_SKIRMISH: dict[str, tuple[object, str]] = {
    "environment.task": (
        None,
        "must be null with env_type skirmish, which is built in; set env_type=pettingzoo, or "
        "choose a file in config/environment/ that does",
    ),
    "environment.kwargs": (
        {},
        "must be empty with env_type skirmish; use environment.skirmish instead",
    ),
    "environment.reward": (
        "team",
        "must be team with env_type skirmish, which has only a team reward",
    ),
    "environment.num_workers": (
        0,
        "must be 0 with env_type skirmish, which steps all copies in one batch",
    ),
    "environment.opponent.kind": (
        "self",
        "must be self with env_type skirmish; set the opponent in environment.skirmish.opponent",
    ),
}


class RunConfig(Frozen):
    """All settings of one run: one resolved config, one seed, one mode."""

    agent: AgentConfig
    mode: Mode
    seed: Seed
    device: Device = "auto"
    env_type: Literal["skirmish", "pettingzoo", "smac", "vmas", "text", "custom"] = "pettingzoo"
    policy_type: PolicyType = "mlp"
    loss_type: LossType = "happo"
    optimizer_type: OptimizerType = "adam"
    collector_type: Literal["sync", "multi_sync"] = "sync"
    buffer_type: Literal["tensor", "memmap"] = "tensor"
    environment: EnvironmentConfig
    policy: PolicyConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    collector: CollectorConfig
    replay_buffer: ReplayBufferConfig
    training: TrainingConfig
    evaluation: EvaluationConfig
    logger: LoggerConfig = LoggerConfig()
    scheduler: SchedulerConfig = SchedulerConfig()
    model: ModelConfig = ModelConfig()
    generation: GenerationConfig = GenerationConfig()
    grpo: GroupRelativeConfig = GroupRelativeConfig()
    from_environment: dict[str, Any] = Field(
        {},
        description="The strings that contain values of environment variables, nested like the "
        "config, with ${oc.env:NAME} for the values. Set by the composition.",
    )

    def recorded(self) -> dict[str, Any]:
        """Return the config for a record: without values of environment variables."""
        data = self.model_dump(mode="json")
        _replace_strings(data, self.from_environment, lambda _, expression: expression)
        return data

    @classmethod
    def from_record(cls, data: dict[str, Any]) -> Self:
        """Return a recorded config, with the current values of environment variables.

        Raises:
            ValueError: a variable is not set, or the config is invalid (pydantic's ValidationError
                is a ValueError).
        """
        data = copy.deepcopy(data)
        _replace_strings(data, data.get("from_environment", {}), lambda text, _: _filled_in(text))
        return cls.model_validate(data)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from self._conflicts_of_kind()
        yield from self._conflicts_of_environment()
        yield from self._conflicts_of_batches()
        if self.kind == NETWORKS:
            yield from self._conflicts_of_processes()
        yield from self._conflicts_of_critic()
        trained_against = self.environment.opponent.kind
        if self.evaluation.opponent == "past_self" and trained_against != "past_self":
            yield (
                "evaluation.opponent",
                "needs environment.opponent.kind=past_self; a run trained against "
                f"{trained_against} keeps no past policies",
            )

    def _conflicts_of_kind(self) -> Iterator[tuple[str, str]]:
        if self.agent.kind == self.kind:
            return
        name = self.environment.name
        if self.kind == LLM:
            message = (
                f"must be {' or '.join(algorithms_of(LLM))}, or a custom algorithm with "
                f"TextPolicy: environment {name} is for language-model agents. Choose an agent "
                "config such as config/agents/grpo_agent_v1.yaml"
            )
        else:
            message = (
                f"{self.agent.algorithm} trains language-model agents, but environment {name} has "
                f"env_type {self.env_type}; choose an environment with env_type text, such as math "
                "or plan_path"
            )
        yield "agent.algorithm", message

    def _conflicts_of_environment(self) -> Iterator[tuple[str, str]]:
        if self.environment.task is None and self.env_type not in ("skirmish", "vmas", "text"):
            yield (
                "environment.task",
                "must be the import path of the environment's factory with env_type "
                f"{self.env_type}",
            )
        if self.env_type == "vmas":
            if not isinstance(self.environment.kwargs.get("scenario"), str):
                message = "must contain the name of a scenario, e.g. {scenario: balance}"
                yield "environment.kwargs", message
            for key, (value, message) in _WITH_VMAS.items():
                if value_at(self, key) != value:
                    yield key, message
        if self.env_type != "skirmish":
            return
        skirmish = self.environment.skirmish
        if skirmish.opponent == "policy" and skirmish.checkpoint is None:
            yield (
                "environment.skirmish.checkpoint",
                "must be set with opponent policy, to a run's checkpoint.pt or best.pt, such as "
                "results/model/checkpoint.pt",
            )
        for key, (value, message) in _WITH_SKIRMISH.items():
            if value_at(self, key) != value:
                yield key, message

    def _conflicts_of_batches(self) -> Iterator[tuple[str, str]]:
        frames, envs = self.collector.frames_per_batch, self.environment.num_parallel_envs
        if frames % envs and self.kind == NETWORKS:
            yield (
                "environment.num_parallel_envs",
                f"must divide collector.frames_per_batch (agent.n_steps), which is {frames}. "
                f"{nearest_divisors(envs, frames)}; or set agent.n_steps to "
                f"{nearest_multiples(frames, envs)}",
            )
        buffer = self.replay_buffer
        minibatches = {"minibatch_size": buffer.minibatch_size}
        if buffer.critic_minibatch_size is not None:
            minibatches["critic_minibatch_size"] = buffer.critic_minibatch_size
        for key, size in minibatches.items():
            if message := batch_size_conflict(size, frames, "collector.frames_per_batch"):
                yield f"replay_buffer.{key}", message
        if not self.is_recurrent:
            return
        chunk, steps = self.policy.gru.chunk_length, frames // envs
        nearest = nearest_divisors(chunk, steps, *minibatches.values())
        if steps % chunk:
            yield (
                "policy.gru.chunk_length",
                f"must divide the {steps} steps that each of the {envs} environments takes per "
                f"batch of {frames} frames. {nearest}; or change the batch",
            )
        for key, size in minibatches.items():
            if size % chunk:
                yield (
                    "policy.gru.chunk_length",
                    f"must divide replay_buffer.{key}, which is {size}, because minibatches "
                    f"consist of whole chunks. {nearest}; or change the minibatch size",
                )

    def _conflicts_of_processes(self) -> Iterator[tuple[str, str]]:
        envs, workers = self.environment.num_parallel_envs, self.environment.num_workers
        if workers > envs:
            message = f"must be at most environment.num_parallel_envs, which is {envs}"
            yield "environment.num_workers", message
        if self.collector_type != "multi_sync":
            return
        if workers:
            yield (
                "environment.num_workers",
                "must be 0 with collector_type multi_sync, whose collectors are already processes",
            )
        if self.environment.opponent.kind == "past_self":
            yield (
                "environment.opponent.kind",
                "past_self needs collector_type=sync, because the training process holds the pool "
                "of past policies",
            )
        collectors = self.collector.num_collectors
        if envs % collectors:
            yield (
                "collector.num_collectors",
                f"must divide environment.num_parallel_envs, which is {envs}. "
                f"{nearest_divisors(collectors, envs)}",
            )

    def _conflicts_of_critic(self) -> Iterator[tuple[str, str]]:
        algorithm, row = self.agent.algorithm, ROW_OF.get(self.agent.algorithm)
        if self.critic == "own":
            if row and row.shared_advantage:
                yield (
                    "policy.critic",
                    f"must be team or group with {algorithm}, whose agents share one advantage",
                )
            return
        if self.environment.reward == "individual":
            yield (
                "environment.reward",
                f"must be team: {algorithm} with a centralised critic optimises a return shared by "
                "all agents; for individual rewards, use IPPO or MaskablePPO",
            )
        wants_state = self.policy.critic_input == "state"
        if wants_state and not self.environment.state and self.env_type != "custom":
            # a custom EnvBase may always provide its state
            yield (
                "policy.critic_input",
                "needs the environment's state, but environment.state is false; set "
                "environment.state=true, or policy.critic_input=observations (or auto)",
            )

    @property
    def critic(self) -> str:
        """The kind of critics: team, group or own."""
        if self.policy.critic != "auto":
            return self.policy.critic
        row = ROW_OF.get(self.agent.algorithm)
        return row.critic if row else "own"

    @property
    def kind(self) -> str:
        """The kind of agents: networks over arrays, or language models."""
        return kind_of_environment(self.env_type)

    @property
    def splits_actions(self) -> bool:
        """Whether the log-probabilities of a continuous action's dimensions are kept separate."""
        row = ROW_OF.get(ALGORITHM_OF_LOSS.get(self.loss_type, ""))
        reads = row is not None and "action_aggregation" in row.loss_keys
        return reads and self.loss.action_aggregation == "mean"

    @property
    def import_paths(self) -> dict[str, str]:
        """All import paths by config key."""
        chosen = {
            "environment.task": self.environment.task,
            "environment.opponent.heuristic": self.environment.opponent.heuristic,
            "agent.algorithm": self.agent.algorithm,
            "policy_type": self.policy_type,
            "loss_type": self.loss_type,
            "optimizer_type": self.optimizer_type,
        }
        if self.kind != NETWORKS:
            chosen["environment.text.task"] = self.environment.text.task
        for group, override in self.policy.groups.items():
            chosen[f"policy.groups.{group}.policy_type"] = override.policy_type
        return {key: path for key, path in chosen.items() if path and ":" in path}

    @property
    def policy_types(self) -> set[str]:
        """The policy types of the run and of single groups."""
        overrides = {override.policy_type for override in self.policy.groups.values()}
        return {self.policy_type, *overrides} - {None}

    @property
    def may_read_state(self) -> bool:
        """Whether something would read the environment's global state, if it provides one."""
        by_critic = self.critic != "own" and self.policy.critic_input != "observations"
        own_code = {self.agent.algorithm, *self.policy_types}
        return by_critic or any(":" in path for path in own_code)

    @property
    def may_be_recurrent(self) -> bool:
        """Whether a policy is recurrent, or may be because it is a custom network."""
        return not self.policy_types <= {"mlp", "cnn"}

    @property
    def is_recurrent(self) -> bool:
        """Whether any group has a built-in recurrent policy."""
        return self.policy_type == "gru" or self.policy.has_recurrent_override

    @property
    def frames_per_problem(self) -> int:
        """Frames of language-model agents per problem: responses per prompt times rounds."""
        return self.grpo.num_generations * self.environment.text.max_turns

    @property
    def problems_per_batch(self) -> int:
        """Problems of language-model agents per iteration."""
        return self.collector.frames_per_batch // self.frames_per_problem

    @property
    def turn_order(self) -> tuple[str, ...] | None:
        """The roles of a round in order; None: only the custom task knows them."""
        text = self.environment.text
        if text.turn_order is not None:
            return tuple(text.turn_order)
        if text.task_is_custom:
            return None
        roles = tuple(text.cast) or TASK_ROLES[text.task]
        return roles[-1:] if self.acts_alone else roles

    @property
    def acts_alone(self) -> bool:
        """Whether only the last role of a task acts, unless a turn order is given."""
        row = ROW_OF.get(self.agent.algorithm)
        return row is not None and row.acts_alone

    def policy_of(self, role: str) -> str:
        """Return the name of a role's policy."""
        model = self.model
        if role in model.roles:
            return model.roles[role]
        return role if model.policies == "role" else SHARED

    @property
    def policy_names(self) -> tuple[str, ...] | None:
        """The distinct policies of all roles; None: only the custom task knows its roles."""
        if self.turn_order is None:
            return None
        return tuple(dict.fromkeys(map(self.policy_of, self.turn_order)))

    @property
    def num_iterations(self) -> int:
        """Iterations of the run: total_frames divided by frames per batch, rounded up."""
        return -(-self.training.total_frames // self.collector.frames_per_batch)


_ENVIRONMENT_VARIABLE = re.compile(r"\$\{oc\.env:(\w+)\}")


def _replace_strings(data: Any, places: dict[str, Any], new: Callable[[str, str], str]) -> None:
    """Replace strings in nested data, in place: `new` takes the string, and that in `places`."""
    for name, part in places.items():
        key: Any = int(name) if isinstance(data, list) else name
        if isinstance(part, dict):
            _replace_strings(data[key], part, new)
        elif isinstance(data[key], str):
            data[key] = new(data[key], part)


def _filled_in(text: str) -> str:
    def value(found: re.Match[str]) -> str:
        if found[1] not in os.environ:
            raise ValueError(
                f"the environment variable {found[1]} is not set; set it, because the record of "
                "the config does not contain its value"
            )
        return os.environ[found[1]]

    return _ENVIRONMENT_VARIABLE.sub(value, text)
