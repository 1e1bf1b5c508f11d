"""Which keys cannot act because a run is of language-model agents, or because it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heteromark.config.models.llm import TINY
from heteromark.config.models.tasks import TASK_CONFIGS

if TYPE_CHECKING:
    from heteromark.config.models.agent import AgentConfig
    from heteromark.config.models.run import RunConfig

# What the components of other agents are made of.
_NOT_OF_TEXT = (
    *("buffer_type", "collector.num_collectors"),
    *("environment.episode_length", "environment.group_by", "environment.groups"),
    *("environment.num_workers", "environment.opponent", "environment.reward"),
    *("environment.skirmish", "environment.smac", "environment.state"),
    *("evaluation.deterministic", "evaluation.max_steps", "evaluation.opponent", "evaluation.seat"),
    *("loss.action_aggregation", "loss.agent_order", "loss.clip_value", "loss.critic_coef"),
    *("loss.critic_loss", "loss.entropy_coef", "loss.gae_lambda", "loss.gamma"),
    *("loss.huber_delta", "loss.normalize_advantage", "loss.normalize_value"),
    *("optimizer.critic_learning_rate", "policy"),
)
_ONLY_OF_TEXT = (
    *("environment.text", "evaluation.passes", "evaluation.preset", "generation", "grpo"),
    *("model", "training.epochs", "training.num_batches"),
)
_HYPERPARAMETERS_NOT_OF_TEXT = (
    *("gamma", "happo", "network.activation_fn", "network.net_arch"),
    *("ppo.ent_coef", "ppo.gae_lambda", "ppo.vf_coef"),
)
_HYPERPARAMETERS_OF_TEXT = ("grpo", "llm")


def text_idle_keys(config: RunConfig) -> dict[str, str]:
    """The keys (or whole sections) that cannot act, each with the reason."""
    if config.env_type != "text":
        reason = f"env_type is {config.env_type}, and it belongs to language-model agents"
        return dict.fromkeys(_ONLY_OF_TEXT, f"{reason} (env_type text)")
    reason = "env_type is text, and language-model agents have none of it"
    idle = dict.fromkeys(_NOT_OF_TEXT, reason)
    if config.evaluation.preset is None:
        del idle["evaluation.deterministic"]
    text, model, grpo = config.environment.text, config.model, config.grpo
    for task in TASK_CONFIGS:
        if text.task != task:
            idle[f"environment.text.{task}"] = f"environment.text.task is {text.task}"
    if not text.task_is_own:
        idle["environment.kwargs"] = f"environment.text.task is {text.task}, which is built in"
    paths = {model.path, *(policy.path for policy in model.by_policy.values())} - {None}
    if TINY not in paths:
        idle["model.tiny"] = f"model.path is {model.path}; set model.path={TINY}"
    if paths == {TINY}:
        for key in ("dtype", "trust_remote_code"):
            idle[f"model.{key}"] = "model.path is tiny, which is built rather than loaded"
    if not model.warm_up.steps:
        for key in ("batch_size", "learning_rate", "mistakes", "ramp", "seed", "target_loss"):
            idle[f"model.warm_up.{key}"] = "model.warm_up.steps is 0"
    elif config.turn_order is not None and len(config.turn_order) == 1:
        idle["model.warm_up.mistakes"] = "a single role acts, and nobody after it"
    specializations = {policy.specialization for policy in model.by_policy.values()} - {None}
    if "lora" not in {model.specialization, *specializations}:
        for key in ("lora_rank", "lora_alpha", "lora_modules"):
            idle[f"model.{key}"] = (
                f"model.specialization is {model.specialization}; set model.specialization=lora"
            )
    if model.roles:
        idle["model.policies"] = "model.roles gives each role its policy"
    if grpo.filter_method == "none":
        idle["grpo.filter_ratio"] = "grpo.filter_method is none; set grpo.filter_method=mean"
    for key, (follower, value) in text_defaults(config).items():
        if getattr(text, key) != value:
            idle[f"environment.text.{key}"] = f"{follower} has a value of its own"
    return idle


def text_defaults(config: RunConfig) -> dict[str, tuple[str, float | None]]:
    """Keys of `environment.text` that are only defaults: of which key, and what that is now."""
    generation = config.generation
    return {
        "max_prompt_length": ("generation.max_prompt_length", generation.max_prompt_length),
        "max_response_length": ("generation.max_response_length", generation.max_response_length),
        "warm_up_steps": ("model.warm_up.steps", config.model.warm_up.steps),
        "warm_up_loss": ("model.warm_up.target_loss", config.model.warm_up.target_loss),
        "warm_up_mistakes": ("model.warm_up.mistakes", config.model.warm_up.mistakes),
    }


def text_ignored(agent: AgentConfig, key: str, trains_text: bool) -> str:
    """Why a hyperparameter does nothing with an algorithm of this kind; empty: it may."""
    sections = _HYPERPARAMETERS_NOT_OF_TEXT if trains_text else _HYPERPARAMETERS_OF_TEXT
    if not any(f"{key}.".startswith(f"{section}.") for section in sections):
        return ""
    if trains_text:
        return f"is {agent.algorithm}, which has no critic and no such network"
    return f"is {agent.algorithm}, which trains no language model"
