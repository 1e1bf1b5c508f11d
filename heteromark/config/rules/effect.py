"""Find the keys of a run config that have no effect on the run, and why.

Such a key is left out of the run's digest, and setting it explicitly is a fault. Files may contain
it, as a default for other runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from heteromark.config.errors import Fault
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.algorithms import ROW_OF, ROWS
from heteromark.config.models.run import RunConfig
from heteromark.config.nested import lies_in
from heteromark.config.rules.kinds import rules_of

# The optimizers that read each key of the section `optimizer`. All optimizers read the other keys.
_READ_BY_OPTIMIZERS = {
    "betas": ("adam", "adamw"),
    "alpha": ("rmsprop",),
    "eps": ("adam", "adamw", "rmsprop"),
    "momentum": ("sgd", "rmsprop"),
    "nesterov": ("sgd",),
}
_READ_BY_BACKENDS = {"offline": ("wandb",), "project": ("wandb", "mlflow")}


def ineffective_keys(config: RunConfig) -> dict[str, str]:
    """Map the keys (or whole sections) without effect on this run to the reasons."""
    reasons = dict(_ineffective_always(config))
    if not is_custom(config.agent.algorithm):  # a custom algorithm may read the whole config
        reasons |= dict(_ineffective_in_training(config))
    reasons |= rules_of(config.kind).ineffective(config)
    # Drop keys in sections that are themselves listed.
    return {
        key: reason
        for key, reason in reasons.items()
        if not any(lies_in(key, section) for section in reasons if section != key)
    }


def ineffective_key_faults(
    config: RunConfig,
    given: Mapping[str, object],
    file: str,
    used_elsewhere: Iterable[str] = (),
) -> list[Fault]:
    """Return a fault for each explicitly set key without effect.

    Args:
        config: the run config.
        given: the explicitly set values by dotted key.
        file: the file or option that set them.
        used_elsewhere: keys that have an effect outside the run itself.
    """
    reasons = {
        key: reason for key, reason in ineffective_keys(config).items() if key not in used_elsewhere
    }
    return [
        Fault(file, f"has no effect: {reason}", key, value)
        for key, value in given.items()
        for section, reason in reasons.items()
        if lies_in(key, section)
    ]


def why_ignored(agent: AgentConfig, key: str) -> str:
    """Return why an agent config's algorithm ignores a hyperparameter; empty if it uses it."""
    row = ROW_OF.get(agent.algorithm)
    if row is None:  # a custom algorithm may read the whole config
        return ""
    if ignored := rules_of(agent.kind).ignored(agent, key):
        return ignored
    owners = [each for each in ROWS if any(lies_in(key, section) for section in each.sections)]
    if not owners or row in owners:
        return ""
    return f"is {agent.algorithm}, not {' or '.join(each.name for each in owners)}"


def is_custom(path: str | None) -> bool:
    """Return whether a selector is the import path of a custom component."""
    return path is not None and ":" in path


def _ineffective_always(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield keys without effect for any algorithm, each with the reason and the remedy."""
    environment, evaluation, env_type = config.environment, config.evaluation, config.env_type
    kind = environment.opponent.kind
    in_evaluation = evaluation.opponent or kind
    yield (
        "environment.episode_length",
        "it only converts a budget in episodes (--episodes) to frames; set the environment's "
        "own parameter for the length of episodes in environment.kwargs",
    )
    if environment.groups is not None:
        yield (
            "environment.group_by",
            "environment.groups assigns the agents; set environment.groups=null",
        )
    if "heuristic" not in (kind, in_evaluation):
        yield (
            "environment.opponent.heuristic",
            f"environment.opponent.kind is {kind}; set environment.opponent.kind=heuristic or "
            "evaluation.opponent=heuristic",
        )
    if kind != "past_self":
        for key in ("pool_size", "snapshot_interval"):
            yield (
                f"environment.opponent.{key}",
                f"environment.opponent.kind is {kind}; set environment.opponent.kind=past_self",
            )
    if kind == "self" and (in_evaluation == "self" or evaluation.seat is not None):
        yield (
            "environment.opponent.seat",
            "environment.opponent.kind is self, so all players learn; set "
            "environment.opponent.kind to random, heuristic or past_self",
        )
    if in_evaluation == "self":
        yield (
            "evaluation.seat",
            "the policy plays all seats in the evaluation; set evaluation.opponent to random or "
            "heuristic",
        )
    if env_type != "skirmish":
        yield "environment.skirmish", f"env_type is {env_type}; set env_type=skirmish"
    if env_type not in ("smac", "custom"):
        remedy = "set env_type=smac for an environment with the SMAC API"
        yield "environment.smac", f"env_type is {env_type}; {remedy}"
    if config.collector_type != "multi_sync":
        reason = f"collector_type is {config.collector_type}; set collector_type=multi_sync"
        yield "collector.num_collectors", reason
    backends = config.logger.backends
    for key, names in _READ_BY_BACKENDS.items():
        if not set(names) & set(backends):
            chosen = ", ".join(backends) or "empty"
            reason = f"logger.backends is {chosen}; set logger.backends=[{names[0]}]"
            yield f"logger.{key}", reason


def _ineffective_in_training(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Yield keys a built-in algorithm ignores. Custom losses and optimizers may read theirs."""
    algorithm, optimizer = config.agent.algorithm, config.optimizer_type
    if config.critic == "own":
        reason = (
            f"the critics of this {algorithm} run see only an agent's own observation "
            "(policy.critic is own); set policy.critic=team or policy.critic=group"
        )
        yield "policy.critic_input", reason
        state_reason = f"nothing reads the state: {reason}"
    else:
        state_reason = (
            "policy.critic_input is observations, so nothing reads the state; set "
            "policy.critic_input=state"
        )
    if not config.may_read_state:
        yield "environment.state", state_reason
    if not config.may_be_recurrent:
        reason = f"policy_type is {config.policy_type}, which has no memory; set policy_type=gru"
        yield "policy.gru", reason
    if not any(kind == "cnn" or is_custom(kind) for kind in config.policy_types):
        reason = f"policy_type is {config.policy_type}; set policy_type=cnn for pictures"
        yield "policy.cnn", reason
    if not is_custom(config.loss_type):
        for key in dict.fromkeys(key for row in ROWS for key in row.loss_keys):
            readers = [row for row in ROWS if key in row.loss_keys]
            if algorithm not in [row.name for row in readers]:
                listed = ", ".join(row.name for row in readers)
                yield (
                    f"loss.{key}",
                    f"agent.algorithm is {algorithm}, but only {listed} use this key; set "
                    f"loss_type={readers[0].loss}",
                )
        if config.loss.critic_loss != "huber":
            reason = f"loss.critic_loss is {config.loss.critic_loss}; set loss.critic_loss=huber"
            yield "loss.huber_delta", reason
        if not config.loss.normalize_value:
            reason = "loss.normalize_value is false; set loss.normalize_value=true"
            yield "loss.value_norm_floor", reason
    for ignored in ROW_OF[algorithm].ignores:
        yield ignored, f"agent.algorithm is {algorithm}, which does not read this key"
    for key, names in _READ_BY_OPTIMIZERS.items():
        if optimizer not in names and not is_custom(optimizer):
            others = f" (or {', '.join(names[1:])})" if names[1:] else ""
            yield (
                f"optimizer.{key}",
                f"optimizer_type is {optimizer}, which ignores this key; set "
                f"optimizer_type={names[0]}{others}",
            )
