"""The typed, frozen model of a resolved run config.

Every value that a run depends on passes through this model, and those of agent configs (`agent`)
and components (`components`), before any code uses it. They are also the source of the JSON schemas
in `config/schema/`, which editors use to complete and check the YAML. Units: learning rates are per
optimizer step; frames are environment steps of all agents.
"""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from heteromark.config.fields import (
    Device,
    Frozen,
    Mode,
    OptimizerType,
    PolicyType,
    Seed,
    cross_field_error,
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

    @model_validator(mode="after")
    def _kinds_agree(self) -> RunConfig:
        if self.agent.kind == self.kind:
            return self
        name, algorithm = self.environment.name, self.agent.algorithm
        if self.kind == LLM:
            message = (
                f"environment {name} is for language-model agents, which "
                f"{' and '.join(algorithms_of(LLM))} train; choose an agent config such as "
                "config/agents/grpo_agent_v1.yaml"
            )
        else:
            message = (
                f"{algorithm} trains language-model agents, but environment {name} has env_type "
                f"{self.env_type}; choose one with env_type text, such as math or plan_path"
            )
        raise cross_field_error("agent.algorithm", algorithm, message)

    @model_validator(mode="after")
    def _environment_is_named(self) -> RunConfig:
        environment, is_built_in = self.environment, self.env_type == "skirmish"
        if environment.task is None and self.env_type not in ("skirmish", "text"):
            raise cross_field_error(
                "environment.task",
                None,
                "must be the import path of the environment's factory with env_type "
                f"{self.env_type}",
            )
        if not is_built_in:
            return self
        if environment.skirmish.opponent == "policy" and environment.skirmish.checkpoint is None:
            raise cross_field_error(
                "environment.skirmish.checkpoint",
                None,
                "must be set with opponent policy: a run's checkpoint.pt or best.pt, for example "
                "results/model/checkpoint.pt",
            )
        for key, value, message in (
            (
                "task",
                environment.task,
                "must be null with env_type skirmish, which is built in; set env_type=pettingzoo, "
                "or choose a file of config/environment/ that does",
            ),
            (
                "kwargs",
                environment.kwargs or None,
                "must be empty with env_type skirmish; its settings are in environment.skirmish",
            ),
            (
                "reward",
                None if environment.reward == "team" else environment.reward,
                "must be team with env_type skirmish, whose reward is the team's",
            ),
            (
                "num_workers",
                environment.num_workers or None,
                "must be 0 with env_type skirmish, which steps all its copies together",
            ),
            (
                "opponent.kind",
                None if environment.opponent.kind == "self" else environment.opponent.kind,
                "must be self with env_type skirmish; who commands the other side is "
                "environment.skirmish.opponent",
            ),
        ):
            if value is not None:
                raise cross_field_error(f"environment.{key}", value, message)
        return self

    @model_validator(mode="after")
    def _batches_fit(self) -> RunConfig:
        frames, envs = self.collector.frames_per_batch, self.environment.num_parallel_envs
        if frames % envs and self.kind == NETWORKS:
            raise cross_field_error(
                "environment.num_parallel_envs",
                envs,
                f"must divide collector.frames_per_batch (agent.n_steps), which is {frames}; "
                f"{nearest_divisors(envs, frames)}, or set agent.n_steps to "
                f"{nearest_multiples(frames, envs)}",
            )
        minibatch = self.replay_buffer.minibatch_size
        if message := misfit(minibatch, frames, "collector.frames_per_batch"):
            raise cross_field_error("replay_buffer.minibatch_size", minibatch, message)
        return self

    @model_validator(mode="after")
    def _chunks_fit(self) -> RunConfig:
        if not self.is_recurrent:
            return self
        chunk, minibatch = self.policy.gru.chunk_length, self.replay_buffer.minibatch_size
        steps = self.collector.frames_per_batch // self.environment.num_parallel_envs
        remedy = f"{nearest_divisors(chunk, steps, minibatch)} (or change what it must divide)"
        if steps % chunk:
            raise cross_field_error(
                "policy.gru.chunk_length",
                chunk,
                f"must divide the {steps} steps that each of the "
                f"{self.environment.num_parallel_envs} environments takes in a batch of "
                f"{self.collector.frames_per_batch} frames; {remedy}",
            )
        if minibatch % chunk:
            raise cross_field_error(
                "policy.gru.chunk_length",
                chunk,
                f"must divide replay_buffer.minibatch_size, which is {minibatch}: minibatches are "
                f"made of whole chunks; {remedy}",
            )
        return self

    @model_validator(mode="after")
    def _copies_can_be_split(self) -> RunConfig:
        if self.kind != NETWORKS:
            return self
        envs = self.environment.num_parallel_envs
        if self.environment.num_workers > envs:
            raise cross_field_error(
                "environment.num_workers",
                self.environment.num_workers,
                f"must be at most environment.num_parallel_envs, which is {envs}",
            )
        if self.collector_type != "multi_sync":
            return self
        if self.environment.num_workers:
            raise cross_field_error(
                "environment.num_workers",
                self.environment.num_workers,
                "must be 0 with collector_type multi_sync, whose collectors are processes already",
            )
        if self.environment.opponent.kind == "past_self":
            raise cross_field_error(
                "environment.opponent.kind",
                "past_self",
                "needs collector_type sync: the pool of past policies is in the training process",
            )
        if envs % self.collector.num_collectors:
            raise cross_field_error(
                "collector.num_collectors",
                self.collector.num_collectors,
                f"must divide environment.num_parallel_envs, which is {envs}; "
                f"{nearest_divisors(self.collector.num_collectors, envs)}",
            )
        return self

    @model_validator(mode="after")
    def _a_team_shares_its_return(self) -> RunConfig:
        algorithm, row = self.agent.algorithm, ROW_OF.get(self.agent.algorithm)
        if row and row.one_advantage and self.critic == "own":
            raise cross_field_error(
                "policy.critic",
                "own",
                f"must be team or group with {algorithm}, whose agents share one advantage",
            )
        if self.critic != "own" and self.environment.reward == "individual":
            raise cross_field_error(
                "environment.reward",
                "individual",
                f"must be team: {algorithm} with a centralised critic optimises a return that all "
                "agents share; for rewards of their own use IPPO or MaskablePPO",
            )
        return self

    @model_validator(mode="after")
    def _critics_see_what_there_is(self) -> RunConfig:
        # a custom EnvBase may give its state unasked
        wants = self.critic != "own" and self.policy.critic_input == "state"
        if wants and not self.environment.state and self.env_type != "custom":
            raise cross_field_error(
                "policy.critic_input",
                "state",
                "needs the environment's state, but environment.state is false; set "
                "environment.state=true, or policy.critic_input=observations (or auto)",
            )
        return self

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

    @model_validator(mode="after")
    def _past_selves_exist(self) -> RunConfig:
        trained_against = self.environment.opponent.kind
        if self.evaluation.opponent == "past_self" and trained_against != "past_self":
            raise cross_field_error(
                "evaluation.opponent",
                "past_self",
                "needs environment.opponent.kind past_self: a run trained against "
                f"{trained_against} keeps no past selves",
            )
        return self

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
