"""`heteromark evaluate` for runs of language-model agents."""

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


BAR = "    │ "  # before every line of what was said


def evaluate_team(
    saved: SavedPolicy,
    request: EvaluationRequest,
    settings: EvaluationConfig,
    device: torch.device,
) -> tuple[dict[str, Any], list[RenderableType]]:
    """Let the team of a checkpoint work on held-out problems.

    Args:
        settings: how to evaluate.

    Returns:
        The report of `TeamEvaluator.evaluate` with iteration, single_agent (the role that worked
        alone, or None), and with `request.swap_roles` the rows of `swap_roles` as role_swaps; and
        what tells it to people.

    Raises:
        ConfigError: an option does not fit the team.
        ValueError: the checkpoint does not fit its task or model, or a prompt is too long.
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
    shown = report["text"]["transcripts"][: request.transcripts or 0]
    lines: list[RenderableType] = [
        *(shown_transcript(number, each) for number, each in enumerate(shown, start=1)),
        *_described(loaded, report),
    ]
    if request.swap_roles:
        lines.append(_swaps_table(report["role_swaps"]))
    return report, lines


def _role_alone(loaded: LoadedTeam) -> str:
    """The task's last role, which can solve problems alone.

    Raises:
        ConfigError: it does not act in this team, or is alone already.
    """
    role, acting = list(loaded.task.roles)[-1], list(dict.fromkeys(loaded.team.turn_order))
    if acting == [role]:
        raise ConfigError.single("--single-agent", f"has no effect: only {role} acts in this run")
    if role not in acting:
        raise ConfigError.single(
            "--single-agent",
            f"needs the task's last role, {role}, but in this run there acted {', '.join(acting)}",
        )
    return role


def references_of(loaded: LoadedTeam, team: Team, device: torch.device) -> dict[str, Responder]:
    """By role whose weights were trained, what responds as its policy did before that.

    Raises:
        ConfigError: there are none.
    """
    trained = {
        role: team.policies[role]
        for role in dict.fromkeys(team.turn_order)
        if team.policies[role].trained_parameters()
    }
    if not trained:
        raise ConfigError.single(
            "--swap-roles",
            "has no effect: no weights were trained in this run, so all roles say the same in "
            "each other's place",
        )
    fresh: Mapping[str, Responder] = {}
    if not all(map(_knows_reference, trained.values())):
        fresh = untrained_team(loaded.config, loaded.task, device)[0].policies
    return {
        role: Reference(policy) if _knows_reference(policy) else fresh[role]
        for role, policy in trained.items()
    }


def _knows_reference(policy: TextPolicy) -> bool:
    """Whether a policy itself can respond as it did before training."""
    return isinstance(policy, AdapterPolicy) or policy.reference is not None


def shown_transcript(number: int, transcript: Mapping[str, Any]) -> Text:
    """One problem's transcript, as `llm.evaluation.evaluate` writes it down.

    What was said stands there as it is: brackets style nothing, and characters that would steer
    the terminal are written as Python writes them in a string.

    Args:
        number: of the problem, from 1.
    """
    solved = transcript["solved"]
    shown = Text.assemble(
        (f"problem {number}: ", "bold"),
        ("solved", "green") if solved else ("not solved", "red"),
        f", reward {transcript['reward']:.2f}\n",
    )
    for step in transcript["steps"]:
        shown.append(f"  round {step['turn'] + 1}, ").append(step["role"], "bold")
        shown.append(
            f": reward {step['reward']:.2f} (team {step['team']:.2f}, local {step['local']:.2f})\n"
        )
        shown.append("    prompt\n", "dim").append(_quoted(step["prompt"]), "dim")
        shown.append("    response\n").append(_quoted(step["response"]), "cyan")
    return shown


def _quoted(said: str) -> str:
    lines = (
        "".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in said.split("\n")
    )
    return "".join(f"{BAR}{line}\n" for line in lines)


def _described(loaded: LoadedTeam, report: Mapping[str, Any]) -> Iterator[str]:
    config, text = loaded.config, report["text"]
    who = "" if report["single_agent"] is None else f"; {report['single_agent']} works alone"
    yield (
        f"{config.agent.short_name}, seed {config.seed}, on {config.environment.name}, after "
        f"iteration {report['iteration']}: {_counted(text['problems'], 'problem')}, "
        f"{_counted(text['passes'], 'pass')} over each, preset {text['preset']}{who}"
    )
    yield f"solve rate:       {_rate(text)}"
    if text["passes"] > 1:
        rates = (f"pass@{k} {rate:.1%}" for k, rate in text["pass_at_k"].items())
        yield f"pass@k:           {', '.join(rates)}"
    yield f"reward:           {text['reward']:.2f}"
    yield f"rounds:           {text['turns']:.2f} of {loaded.team.max_turns}"
    for role, said in text["roles"].items():
        yield f"{f'{role}:':<17} {_responses(said, loaded.team)}"
    if text["judgement"]:
        shares = (f"{_words(name)} {share:.1%}" for name, share in text["judgement"].items())
        yield f"judgement:        {', '.join(shares)}"


def _responses(said: Mapping[str, Any], team: Team) -> str:
    if not said["responses"]:
        return "did not respond"
    return (
        f"{said['response_length']:.1f} tokens a response, {said['cut_off']:.1%} cut off at "
        f"{team.max_response_length}"
    )


def _swaps_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("roles", "solve rate", title="with roles filled otherwise", title_justify="left")
    for row in rows:
        table.add_row(row["name"], _rate(row))
    return table


def _rate(solving: Mapping[str, Any]) -> str:
    """A solve rate and its standard error; a single problem has none."""
    error = solving["solve_rate_standard_error"]
    spread = "" if error is None else f" ± {error:.1%} (standard error)"
    return f"{solving['solve_rate']:.1%}{spread}"


def _words(name: str) -> str:
    return name.replace("_percent", " %").replace("_", " ")


def _counted(number: int, what: str) -> str:
    plural = "es" if what.endswith("s") else "s"
    return f"{number} {what}{'' if number == 1 else plural}"
