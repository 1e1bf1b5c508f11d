"""Implement `heteromark evaluate` for runs of language-model agents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Table
from rich.text import Text

from heteromark.config.errors import ConfigError
from heteromark.config.models.components import EvaluationConfig
from heteromark.llm.evaluation import single_agent
from heteromark.llm.evaluator import TeamEvaluator
from heteromark.llm.policies.base import TextPolicy
from heteromark.llm.policies.language_model import AdapterPolicy
from heteromark.llm.role_swaps import Reference, swap_roles
from heteromark.llm.rollout import Responder, Team
from heteromark.llm.team import LoadedTeam, restored_team, untrained_team
from heteromark.training.device import arithmetic_of
from heteromark.training.evaluation_request import EvaluationRequest
from heteromark.training.saved_policy import SavedPolicy

if TYPE_CHECKING:
    from rich.console import RenderableType


BAR = "    │ "  # prefix of every line of a prompt or response


def evaluate_team(
    saved: SavedPolicy,
    request: EvaluationRequest,
    settings: EvaluationConfig,
    device: torch.device,
) -> tuple[dict[str, Any], list[RenderableType]]:
    """Evaluate a checkpoint's team on held-out problems.

    Args:
        saved: the checkpoint.
        request: the options of the command.
        settings: how to evaluate.
        device: where to run the models.

    Returns:
        The report and its printable form. The report is that of `TeamEvaluator.evaluate` plus
        iteration, single_agent (the role that worked alone, or None) and, if
        `request.swap_roles` is set, role_swaps (the rows of `swap_roles`).

    Raises:
        ConfigError: An option does not fit the team.
        ValueError: The checkpoint does not fit its task or model, or a prompt is too long.
    """
    loaded = restored_team(saved, device)
    alone = _role_alone(loaded) if request.single_agent else None
    team = loaded.team if alone is None else single_agent(loaded.team, alone)
    references = references_of(loaded, team, device) if request.swap_roles else {}
    evaluator = TeamEvaluator(loaded.config, loaded.task, team, device, settings)
    evaluator.num_transcripts = max(evaluator.num_transcripts, request.transcripts or 0)
    with arithmetic_of(loaded.config, device):
        report = {
            "iteration": loaded.iteration,
            "single_agent": alone,
            **evaluator.evaluate(request.seed),
        }
        if request.swap_roles:
            problems, passes = evaluator.problems(request.seed), evaluator.passes(request.seed)
            report["role_swaps"] = swap_roles(team, problems, passes, references)
    transcripts = report["text"]["transcripts"][: request.transcripts or 0]
    lines: list[RenderableType] = [
        *(format_transcript(number, each) for number, each in enumerate(transcripts, start=1)),
        *_summary(loaded, report),
    ]
    if request.swap_roles:
        lines.append(_swaps_table(report["role_swaps"]))
    return report, lines


def _role_alone(loaded: LoadedTeam) -> str:
    """Return the task's last role, which can solve problems alone.

    Raises:
        ConfigError: The role does not act in this team, or is already its only role.
    """
    role, acting = list(loaded.task.roles)[-1], list(dict.fromkeys(loaded.team.turn_order))
    if acting == [role]:
        raise ConfigError.single("--single-agent", f"has no effect: only {role} acts in this run")
    if role not in acting:
        raise ConfigError.single(
            "--single-agent",
            f"needs the task's last role ({role}), but this run's roles are {', '.join(acting)}",
        )
    return role


def references_of(loaded: LoadedTeam, team: Team, device: torch.device) -> dict[str, Responder]:
    """Return the untrained counterpart of each role's policy, for roles with trained weights.

    Raises:
        ConfigError: No role has trained weights.
    """
    trained = {
        role: policy
        for role in dict.fromkeys(team.turn_order)
        if (policy := loaded.policies[loaded.config.policy_of(role)]).trained_parameters()
    }
    if not trained:
        raise ConfigError.single(
            "--swap-roles",
            "has no effect: this run trained no weights, so swapping roles changes nothing",
        )
    fresh: Mapping[str, Responder] = {}
    if not all(map(_has_reference, trained.values())):
        fresh = untrained_team(loaded.config, loaded.task, device)[0].policies
    return {
        role: Reference(policy) if _has_reference(policy) else fresh[role]
        for role, policy in trained.items()
    }


def _has_reference(policy: TextPolicy) -> bool:
    """Return whether the policy object can still respond as it did before training."""
    return isinstance(policy, AdapterPolicy) or policy.reference is not None


def format_transcript(number: int, transcript: Mapping[str, Any]) -> Text:
    """Format one problem's transcript for the terminal.

    Prompts and responses are printed verbatim: brackets are not treated as markup, and control
    characters are escaped as in Python strings.

    Args:
        number: number of the problem, from 1.
        transcript: an entry of the report's transcripts (`llm.evaluation.evaluate`).
    """
    solved = transcript["solved"]
    text = Text.assemble(
        (f"problem {number}: ", "bold"),
        ("solved", "green") if solved else ("not solved", "red"),
        f", reward {transcript['reward']:.2f}\n",
    )
    for step in transcript["steps"]:
        text.append(f"  round {step['turn'] + 1}, ").append(step["role"], "bold")
        text.append(
            f": reward {step['reward']:.2f} (team {step['team']:.2f}, local {step['local']:.2f})\n"
        )
        text.append("    prompt\n", "dim").append(_quoted(step["prompt"]), "dim")
        text.append("    response\n").append(_quoted(step["response"]), "cyan")
    return text


def _quoted(text: str) -> str:
    lines = (
        "".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in text.split("\n")
    )
    return "".join(f"{BAR}{line}\n" for line in lines)


def _summary(loaded: LoadedTeam, report: Mapping[str, Any]) -> Iterator[str]:
    config, text = loaded.config, report["text"]
    alone = "" if report["single_agent"] is None else f"; {report['single_agent']} works alone"
    yield (
        f"{config.agent.short_name}, seed {config.seed}, on {config.environment.name}, after "
        f"iteration {report['iteration']}: {_counted(text['problems'], 'problem')}, "
        f"{_counted(text['passes'], 'pass')} each, preset {text['preset']}{alone}"
    )
    yield f"solve rate:       {_rate(text)}"
    if text["passes"] > 1:
        rates = (f"pass@{k} {rate:.1%}" for k, rate in text["pass_at_k"].items())
        yield f"pass@k:           {', '.join(rates)}"
    yield f"reward:           {text['reward']:.2f}"
    yield f"rounds:           {text['turns']:.2f} of {loaded.team.max_turns}"
    for role, responses in text["roles"].items():
        yield f"{f'{role}:':<17} {_response_summary(responses, loaded.team)}"
    if text["judgement"]:
        shares = (f"{_words(name)} {share:.1%}" for name, share in text["judgement"].items())
        yield f"judgement:        {', '.join(shares)}"


def _response_summary(responses: Mapping[str, Any], team: Team) -> str:
    if not responses["responses"]:
        return "did not respond"
    return (
        f"{responses['response_length']:.1f} tokens per response, {responses['cut_off']:.1%} cut "
        f"off at {team.max_response_length}"
    )


def _swaps_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    title = "with swapped or untrained policies"
    table = Table("roles", "solve rate", title=title, title_justify="left")
    for row in rows:
        table.add_row(row["name"], _rate(row))
    return table


def _rate(row: Mapping[str, Any]) -> str:
    """Format a solve rate and its standard error, which a single problem does not have."""
    error = row["solve_rate_standard_error"]
    spread = "" if error is None else f" ± {error:.1%} (standard error)"
    return f"{row['solve_rate']:.1%}{spread}"


def _words(name: str) -> str:
    return name.replace("_percent", " %").replace("_", " ")


def _counted(number: int, noun: str) -> str:
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{'' if number == 1 else plural}"
