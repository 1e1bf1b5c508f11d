"""Which keys of a run config cannot act in it, and why.

One table for both uses: such a key does not count in a run's digest, and giving one explicitly is a
fault. Files may hold it, as a default for runs in which it acts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from heteromark.config.errors import Fault
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.algorithms import ROW_OF, ROWS
from heteromark.config.models.run import RunConfig
from heteromark.config.nested import lies_in
from heteromark.config.rules.kinds import rules_of

Reason = Callable[[RunConfig], str]  # why a key cannot act, and what to change; empty: it acts


def idle_keys(config: RunConfig) -> dict[str, str]:
    """The keys (or whole sections) that change nothing in this run, each with the reason."""
    found = {key: reason(config) for key, reason in _IDLE.items()}
    reasons = {key: reason for key, reason in found.items() if reason}
    reasons |= rules_of(config.kind).idle(config)
    # what lies in a section that cannot act need not be told as well
    return {key: reason for key, reason in reasons.items() if not _sections_of(key) & set(reasons)}


def idle_faults(
    config: RunConfig, given: Mapping[str, object], file: str, felt: Iterable[str] = ()
) -> list[Fault]:
    """A fault for every explicitly given key that changes nothing.

    Args:
        given: values by dotted key.
        file: where they were given.
        felt: keys that act outside the run itself.
    """
    idle = {key: reason for key, reason in idle_keys(config).items() if key not in felt}
    return [
        Fault(file, f"has no effect: {reason}", key, value)
        for key, value in given.items()
        for section, reason in idle.items()
        if lies_in(key, section)
    ]


def ignored_by(agent: AgentConfig, key: str) -> str:
    """Why a hyperparameter of an agent config does nothing in it; empty when it does something."""
    row = ROW_OF.get(agent.algorithm)
    if row is None:  # one of the user's own is given the whole config
        return ""
    if ignored := rules_of(agent.kind).ignored(agent, key):
        return ignored
    owners = [each for each in ROWS if each.section and lies_in(key, each.section)]
    if not owners or row in owners:
        return ""
    return f"is {agent.algorithm}, not {' or '.join(each.name for each in owners)}"


def _sections_of(key: str) -> set[str]:
    """The sections that a dotted key lies in."""
    parts = key.split(".")
    return {".".join(parts[:depth]) for depth in range(1, len(parts))}


def is_own(path: str | None) -> bool:
    """Whether a selector names a component of the user's own, by its import path."""
    return path is not None and ":" in path


# An algorithm of one's own is given the whole config, and may look at any of it; a loss and an
# optimizer of one's own are given their sections.


def _only_loss_of(name: str) -> Reason:
    def reason(config: RunConfig) -> str:
        algorithm = config.agent.algorithm
        if algorithm == name or is_own(algorithm) or is_own(config.loss_type):
            return ""
        remedy = f"set loss_type={ROW_OF[name].loss}"
        return f"agent.algorithm is {algorithm}, and only {name} looks at it; {remedy}"

    return reason


def _only_optimizers(*names: str) -> Reason:
    def reason(config: RunConfig) -> str:
        chosen = config.optimizer_type
        if chosen in names or is_own(chosen) or is_own(config.agent.algorithm):
            return ""
        return (
            f"optimizer_type is {chosen}, and it belongs to {', '.join(names)}; set "
            f"optimizer_type={names[0]}"
        )

    return reason


def _huber_delta(config: RunConfig) -> str:
    if config.loss.critic_loss == "huber":
        return ""
    if is_own(config.loss_type) or is_own(config.agent.algorithm):
        return ""
    return f"loss.critic_loss is {config.loss.critic_loss}; set loss.critic_loss=huber"


def _gru(config: RunConfig) -> str:
    if config.may_remember or is_own(config.agent.algorithm):
        return ""
    return f"policy_type is {config.policy_type}, which has no memory; set policy_type=gru"


def _centralised_critic(config: RunConfig) -> str:
    if config.critic != "own" or is_own(config.agent.algorithm):
        return ""
    return (
        f"the critics of this {config.agent.algorithm} run value what an agent sees itself "
        "(policy.critic own); set policy.critic=team or policy.critic=group"
    )


def _state(config: RunConfig) -> str:
    if any(map(is_own, config.policy_types)) or is_own(config.agent.algorithm):
        return ""
    if reason := _centralised_critic(config):
        return f"nothing sees the state: {reason}"
    if config.policy.critic_input == "observations":
        return (
            "policy.critic_input is observations, so nothing sees the state; set "
            "policy.critic_input=state"
        )
    return ""


def _group_by(config: RunConfig) -> str:
    if config.environment.groups is None:
        return ""
    return "environment.groups assigns the agents; set environment.groups=null"


def _smac(config: RunConfig) -> str:
    if config.env_type in ("smac", "custom"):
        return ""
    return f"env_type is {config.env_type}; set env_type=smac for an object with the SMAC API"


def _skirmish(config: RunConfig) -> str:
    if config.env_type == "skirmish":
        return ""
    return f"env_type is {config.env_type}; set env_type=skirmish"


def _opponents(config: RunConfig) -> set[str]:
    """Who plays the other seats, in training or in evaluation."""
    trained_against = config.environment.opponent.kind
    return {trained_against, config.evaluation.opponent or trained_against}


def _training_seat(config: RunConfig) -> str:
    kind, evaluation = config.environment.opponent.kind, config.evaluation
    plays_in_evaluation = evaluation.seat is None and _opponents(config) != {"self"}
    if kind != "self" or plays_in_evaluation:
        return ""
    return (
        "environment.opponent.kind is self, so all seats learn; set environment.opponent.kind to "
        "random, heuristic or past_self"
    )


def _evaluation_seat(config: RunConfig) -> str:
    against = config.evaluation.opponent or config.environment.opponent.kind
    if against != "self":
        return ""
    return (
        "the evaluation is played by the policy in all seats; set evaluation.opponent to random or "
        "heuristic"
    )


def _heuristic(config: RunConfig) -> str:
    if "heuristic" in _opponents(config):
        return ""
    return (
        f"environment.opponent.kind is {config.environment.opponent.kind}; set "
        "environment.opponent.kind=heuristic or evaluation.opponent=heuristic"
    )


def _pool_size(config: RunConfig) -> str:
    kind = config.environment.opponent.kind
    if kind == "past_self":
        return ""
    return f"environment.opponent.kind is {kind}; set environment.opponent.kind=past_self"


def _num_collectors(config: RunConfig) -> str:
    if config.collector_type == "multi_sync":
        return ""
    return f"collector_type is {config.collector_type}; set collector_type=multi_sync"


def _episode_length(_: RunConfig) -> str:
    return (
        "it only tells how long an episode is, for a budget given in episodes (--episodes); set "
        "the length itself in environment.kwargs, by the environment's own name for it"
    )


def _only_backends(*names: str) -> Reason:
    def reason(config: RunConfig) -> str:
        if set(names) & set(config.logger.backends):
            return ""
        chosen = ", ".join(config.logger.backends) or "empty"
        return f"logger.backends is {chosen}; set logger.backends=[{names[0]}]"

    return reason


_IDLE: dict[str, Reason] = {
    "environment.episode_length": _episode_length,
    "environment.group_by": _group_by,
    "environment.opponent.heuristic": _heuristic,
    "environment.opponent.pool_size": _pool_size,
    "environment.opponent.seat": _training_seat,
    "environment.skirmish": _skirmish,
    "environment.smac": _smac,
    "environment.state": _state,
    "policy.critic_input": _centralised_critic,
    "policy.gru": _gru,
    **{f"loss.{key}": _only_loss_of(row.name) for row in ROWS for key in row.loss_keys},
    "loss.huber_delta": _huber_delta,
    "optimizer.betas": _only_optimizers("adam", "adamw"),
    "optimizer.alpha": _only_optimizers("rmsprop"),
    "optimizer.eps": _only_optimizers("adam", "adamw", "rmsprop"),
    "optimizer.momentum": _only_optimizers("sgd", "rmsprop"),
    "optimizer.nesterov": _only_optimizers("sgd"),
    "collector.num_collectors": _num_collectors,
    "evaluation.seat": _evaluation_seat,
    "logger.offline": _only_backends("wandb"),
    "logger.project": _only_backends("wandb", "mlflow"),
}
