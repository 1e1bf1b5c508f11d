"""The typed, frozen model of a resolved run config.

Every value that a run depends on passes through this model, and those of agent configs (`agent`)
and components (`components`), before any code uses it. They are also the source of the JSON schemas
in `config/schema/`, which editors use to complete and check the YAML. Units: learning rates are per
optimizer step; frames are environment steps of all agents.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from heteromark.config.fields import (
    Device,
    Frozen,
    Mode,
    OptimizerType,
    PolicyType,
    Seed,
    misfit,
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

# What the sections of other environments must hold with the built-in battle.
_WITH_SKIRMISH: dict[str, tuple[object, str]] = {
    "environment.task": (
        None,
        "must be null with env_type skirmish, which is built in; set env_type=pettingzoo, or "
        "choose a file of config/environment/ that does",
    ),
    "environment.kwargs": (
        {},
        "must be empty with env_type skirmish; its settings are in environment.skirmish",
    ),
    "environment.reward": (
        "team",
        "must be team with env_type skirmish, whose reward is the team's",
    ),
    "environment.num_workers": (
        0,
        "must be 0 with env_type skirmish, which steps all its copies together",
    ),
    "environment.opponent.kind": (
        "self",
        "must be self with env_type skirmish; who commands the other side is "
        "environment.skirmish.opponent",
    ),
}


class RunConfig(Frozen):
    """Everything one run is determined by: one resolved config, one seed, one mode."""

    agent: AgentConfig
    mode: Mode
    seed: Seed
    device: Device = "auto"
    env_type: Literal["skirmish", "pettingzoo", "smac", "text", "custom"] = "pettingzoo"
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

    def misfits(self) -> Iterator[tuple[str, str]]:
        yield from self._misfits_of_kind()
        yield from self._misfits_of_environment()
        yield from self._misfits_of_batches()
        if self.kind == NETWORKS:
            yield from self._misfits_of_processes()
        yield from self._misfits_of_critic()
        trained_against = self.environment.opponent.kind
        if self.evaluation.opponent == "past_self" and trained_against != "past_self":
            yield (
                "evaluation.opponent",
                "needs environment.opponent.kind past_self: a run trained against "
                f"{trained_against} keeps no past selves",
            )

    def _misfits_of_kind(self) -> Iterator[tuple[str, str]]:
        if self.agent.kind == self.kind:
            return
        name = self.environment.name
        if self.kind == LLM:
            message = (
                f"environment {name} is for language-model agents, which "
                f"{' and '.join(algorithms_of(LLM))} train; choose an agent config such as "
                "config/agents/grpo_agent_v1.yaml"
            )
        else:
            message = (
                f"{self.agent.algorithm} trains language-model agents, but environment {name} has "
                f"env_type {self.env_type}; choose one with env_type text, such as math or "
                "plan_path"
            )
        yield "agent.algorithm", message

    def _misfits_of_environment(self) -> Iterator[tuple[str, str]]:
        if self.environment.task is None and self.env_type not in ("skirmish", "text"):
            yield (
                "environment.task",
                "must be the import path of the environment's factory with env_type "
                f"{self.env_type}",
            )
        if self.env_type != "skirmish":
            return
        skirmish = self.environment.skirmish
        if skirmish.opponent == "policy" and skirmish.checkpoint is None:
            yield (
                "environment.skirmish.checkpoint",
                "must be set with opponent policy: a run's checkpoint.pt or best.pt, for example "
                "results/model/checkpoint.pt",
            )
        for key, (value, message) in _WITH_SKIRMISH.items():
            if value_at(self, key) != value:
                yield key, message

    def _misfits_of_batches(self) -> Iterator[tuple[str, str]]:
        frames, envs = self.collector.frames_per_batch, self.environment.num_parallel_envs
        if frames % envs and self.kind == NETWORKS:
            yield (
                "environment.num_parallel_envs",
                f"must divide collector.frames_per_batch (agent.n_steps), which is {frames}; "
                f"{nearest_divisors(envs, frames)}, or set agent.n_steps to "
                f"{nearest_multiples(frames, envs)}",
            )
        minibatch = self.replay_buffer.minibatch_size
        if message := misfit(minibatch, frames, "collector.frames_per_batch"):
            yield "replay_buffer.minibatch_size", message
        if not self.is_recurrent:
            return
        chunk, steps = self.policy.gru.chunk_length, frames // envs
        remedy = f"{nearest_divisors(chunk, steps, minibatch)} (or change what it must divide)"
        if steps % chunk:
            yield (
                "policy.gru.chunk_length",
                f"must divide the {steps} steps that each of the {envs} environments takes in a "
                f"batch of {frames} frames; {remedy}",
            )
        if minibatch % chunk:
            yield (
                "policy.gru.chunk_length",
                f"must divide replay_buffer.minibatch_size, which is {minibatch}: minibatches are "
                f"made of whole chunks; {remedy}",
            )

    def _misfits_of_processes(self) -> Iterator[tuple[str, str]]:
        envs, workers = self.environment.num_parallel_envs, self.environment.num_workers
        if workers > envs:
            message = f"must be at most environment.num_parallel_envs, which is {envs}"
            yield "environment.num_workers", message
        if self.collector_type != "multi_sync":
            return
        if workers:
            yield (
                "environment.num_workers",
                "must be 0 with collector_type multi_sync, whose collectors are processes already",
            )
        if self.environment.opponent.kind == "past_self":
            yield (
                "environment.opponent.kind",
                "needs collector_type sync: the pool of past policies is in the training process",
            )
        collectors = self.collector.num_collectors
        if envs % collectors:
            yield (
                "collector.num_collectors",
                f"must divide environment.num_parallel_envs, which is {envs}; "
                f"{nearest_divisors(collectors, envs)}",
            )

    def _misfits_of_critic(self) -> Iterator[tuple[str, str]]:
        algorithm, row = self.agent.algorithm, ROW_OF.get(self.agent.algorithm)
        if self.critic == "own":
            if row and row.one_advantage:
                yield (
                    "policy.critic",
                    f"must be team or group with {algorithm}, whose agents share one advantage",
                )
            return
        if self.environment.reward == "individual":
            yield (
                "environment.reward",
                f"must be team: {algorithm} with a centralised critic optimises a return that all "
                "agents share; for rewards of their own use IPPO or MaskablePPO",
            )
        wants_state = self.policy.critic_input == "state"
        if wants_state and not self.environment.state and self.env_type != "custom":
            # a custom EnvBase may give its state unasked
            yield (
                "policy.critic_input",
                "needs the environment's state, but environment.state is false; set "
                "environment.state=true, or policy.critic_input=observations (or auto)",
            )

    @property
    def critic(self) -> str:
        """Whose critics there are: team, group or own."""
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
        """Whether log-probabilities of a continuous action's dimensions are kept apart."""
        row = ROW_OF.get(ALGORITHM_OF_LOSS.get(self.loss_type, ""))
        reads = row is not None and "action_aggregation" in row.loss_keys
        return reads and self.loss.action_aggregation == "mean"

    @property
    def import_paths(self) -> dict[str, str]:
        """Everything that is named by an import path, by the key that names it."""
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
        """The kinds of network that there are: the run's, and those of single groups."""
        overrides = {override.policy_type for override in self.policy.groups.values()}
        return {self.policy_type, *overrides} - {None}

    @property
    def may_remember(self) -> bool:
        """Whether a policy may be recurrent: only of one's own networks is it not known here."""
        return self.policy_types != {"mlp"}

    @property
    def is_recurrent(self) -> bool:
        """Whether any group's policy is known to remember."""
        return self.policy_type == "gru" or self.policy.overrides_recurrence

    @property
    def frames_per_problem(self) -> int:
        """Frames that language-model agents spend on a problem: rounds of all its responses."""
        return self.grpo.num_generations * self.environment.text.max_turns

    @property
    def problems_per_batch(self) -> int:
        """Problems that language-model agents work on in one iteration."""
        return self.collector.frames_per_batch // self.frames_per_problem

    @property
    def turn_order(self) -> tuple[str, ...] | None:
        """Roles of a round, in order; None: the user's own task knows them."""
        text = self.environment.text
        if text.turn_order is not None:
            return tuple(text.turn_order)
        if text.task_is_own:
            return None
        roles = tuple(text.cast) or TASK_ROLES[text.task]
        return roles[-1:] if self.acts_alone else roles

    @property
    def acts_alone(self) -> bool:
        """Whether the last role of a task acts alone, where no turn order is given."""
        row = ROW_OF.get(self.agent.algorithm)
        return row is not None and row.acts_alone

    def policy_of(self, role: str) -> str:
        """The name of a role's policy."""
        model = self.model
        if role in model.roles:
            return model.roles[role]
        return role if model.policies == "role" else SHARED

    @property
    def policy_names(self) -> tuple[str, ...] | None:
        """The policies of all roles, each once; None: the user's own task knows its roles."""
        if self.turn_order is None:
            return None
        return tuple(dict.fromkeys(map(self.policy_of, self.turn_order)))

    @property
    def num_iterations(self) -> int:
        """Iterations of the run: total_frames rounded up to whole batches."""
        return -(-self.training.total_frames // self.collector.frames_per_batch)
