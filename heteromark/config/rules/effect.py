"""Which keys of a run config cannot act in it, and why.

One table for both uses: such a key does not count in a run's digest, and giving one explicitly is a
fault. Files may hold it, as a default for runs in which it acts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from heteromark.config.errors import Fault
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.algorithms import ROW_OF, ROWS
from heteromark.config.models.run import RunConfig
from heteromark.config.nested import lies_in
from heteromark.config.rules.kinds import rules_of

# What each optimizer reads of the section `optimizer`, besides what all of them read.
_READ_BY_OPTIMIZERS = {
    "betas": ("adam", "adamw"),
    "alpha": ("rmsprop",),
    "eps": ("adam", "adamw", "rmsprop"),
    "momentum": ("sgd", "rmsprop"),
    "nesterov": ("sgd",),
}
_READ_BY_BACKENDS = {"offline": ("wandb",), "project": ("wandb", "mlflow")}


def idle_keys(config: RunConfig) -> dict[str, str]:
    """The keys (or whole sections) that change nothing in this run, each with the reason."""
    reasons = dict(_idle_everywhere(config))
    if not is_own(config.agent.algorithm):  # which is given the whole config, and may look at it
        reasons |= dict(_idle_in_training(config))
    reasons |= rules_of(config.kind).idle(config)
    # what lies in a section that cannot act need not be told as well
    return {
        key: reason
        for key, reason in reasons.items()
        if not any(lies_in(key, section) for section in reasons if section != key)
    }


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


def is_own(path: str | None) -> bool:
    """Whether a selector names a component of the user's own, by its import path."""
    return path is not None and ":" in path


def _idle_everywhere(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Keys that cannot act, whatever the algorithm is; each with why, and what to change."""
    environment, evaluation, env_type = config.environment, config.evaluation, config.env_type
    kind = environment.opponent.kind
    in_evaluation = evaluation.opponent or kind
    yield (
        "environment.episode_length",
        "it only tells how long an episode is, for a budget given in episodes (--episodes); set "
        "the length itself in environment.kwargs, by the environment's own name for it",
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
        yield (
            "environment.opponent.pool_size",
            f"environment.opponent.kind is {kind}; set environment.opponent.kind=past_self",
        )
    if kind == "self" and (in_evaluation == "self" or evaluation.seat is not None):
        yield (
            "environment.opponent.seat",
            "environment.opponent.kind is self, so all seats learn; set environment.opponent.kind "
            "to random, heuristic or past_self",
        )
    if in_evaluation == "self":
        yield (
            "evaluation.seat",
            "the evaluation is played by the policy in all seats; set evaluation.opponent to "
            "random or heuristic",
        )
    if env_type != "skirmish":
        yield "environment.skirmish", f"env_type is {env_type}; set env_type=skirmish"
    if env_type not in ("smac", "custom"):
        remedy = "set env_type=smac for an object with the SMAC API"
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


def _idle_in_training(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Keys that a built-in algorithm does not look at; own losses and optimizers may at theirs."""
    algorithm, optimizer, policy = config.agent.algorithm, config.optimizer_type, config.policy
    if config.critic == "own":
        reason = (
            f"the critics of this {algorithm} run value what an agent sees itself (policy.critic "
            "own); set policy.critic=team or policy.critic=group"
        )
        yield "policy.critic_input", reason
        hidden = f"nothing sees the state: {reason}"
    else:
        hidden = (
            "policy.critic_input is observations, so nothing sees the state; set "
            "policy.critic_input=state"
        )
    sees_state = config.critic != "own" and policy.critic_input != "observations"
    if not sees_state and not any(map(is_own, config.policy_types)):
        yield "environment.state", hidden
    if not config.may_remember:
        reason = f"policy_type is {config.policy_type}, which has no memory; set policy_type=gru"
        yield "policy.gru", reason
    if not is_own(config.loss_type):
        for row in ROWS:
            for key in row.loss_keys if row.name != algorithm else ():
                yield (
                    f"loss.{key}",
                    f"agent.algorithm is {algorithm}, and only {row.name} looks at it; set "
                    f"loss_type={row.loss}",
                )
        if config.loss.critic_loss != "huber":
            reason = f"loss.critic_loss is {config.loss.critic_loss}; set loss.critic_loss=huber"
            yield "loss.huber_delta", reason
    for key, names in _READ_BY_OPTIMIZERS.items():
        if optimizer not in names and not is_own(optimizer):
            yield (
                f"optimizer.{key}",
                f"optimizer_type is {optimizer}, and it belongs to {', '.join(names)}; set "
                f"optimizer_type={names[0]}",
            )
