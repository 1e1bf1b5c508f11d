"""What `heteromark evaluate` is asked for, and whether a run can be asked that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from heteromark.config.errors import ConfigError, Fault
from heteromark.config.fields import Seat
from heteromark.config.models.components import EvaluationConfig, EvaluationOpponent, Preset
from heteromark.config.models.run import RunConfig

FINAL, BEST = "final", "best"
FPS = 10

_NOBODY_OPPOSES = "nobody plays against language-model agents"
_NO_PICTURES = "text is not drawn; --transcripts shows what was said"
# Options that only one kind of run can be asked for, and why the other cannot.
_OF_EPISODES = {
    "opponent": _NOBODY_OPPOSES,
    "seat": _NOBODY_OPPOSES,
    "max_steps": "problems end after environment.text.max_turns rounds",
    "gif": _NO_PICTURES,
    "fps": _NO_PICTURES,
}
_OF_TEAMS = {
    "preset": "it has no responses to sample; --deterministic and --sampled choose actions",
    "passes": "it has no problems to try again; --episodes says how much is played",
    "transcripts": "nothing is said in it; --gif shows an episode",
    "swap_roles": "it has no roles",
    "single_agent": "it has no roles",
}


@dataclass(frozen=True)
class EvaluationRequest:
    """Options of the command line.

    Attributes:
        run: run folder, checkpoint file, or (the start of) a digest.
        episodes: to be played; for language-model agents: problems to be worked on.
        deterministic: most likely actions, or responses; None: most likely actions, but responses
            as `preset` says.
        checkpoint: "final", "best", or a file, as such or in the run's folder.
        opponent, seat, max_steps: None: as in the run's own evaluation.
        output: receives the figures as JSON.
        gif: receives a picture of one episode, `fps` frames a second; None: `FPS`.
        preset, passes: how responses are sampled, and how often each problem is worked on; None:
            as in the run's own evaluation.
        transcripts: of how many problems what was said is shown.
        swap_roles: evaluate with the roles filled otherwise, too.
        single_agent: the task's last role works alone.
    """

    run: str
    episodes: int = 100
    seed: int = 1000
    deterministic: bool | None = None
    device: str = "auto"
    checkpoint: str = FINAL
    opponent: EvaluationOpponent | None = None
    seat: Seat | None = None
    max_steps: int | None = None
    output: Path | None = None
    gif: Path | None = None
    fps: int | None = None
    preset: Preset | None = None
    passes: int | None = None
    transcripts: int | None = None
    swap_roles: bool = False
    single_agent: bool = False

    def settings(self, config: RunConfig) -> EvaluationConfig:
        """How to evaluate: as the run's config says, but for what was asked for."""
        asked = {
            "opponent": self.opponent,
            "seat": self.seat,
            "max_steps": self.max_steps,
            "passes": self.passes,
        }
        changes = {key: value for key, value in asked.items() if value is not None}
        if config.env_type == "text":
            preset = self._preset(config)
            changes |= {"preset": preset, "deterministic": preset == "greedy"}
            if preset == "greedy":  # passes would all be the same
                changes["passes"] = 1
        else:
            changes["deterministic"] = self.deterministic is not False
        return config.evaluation.model_copy(update={"episodes": self.episodes, **changes})

    def check_fits(self, config: RunConfig) -> None:
        """Refuse options that this kind of run does not know, or that contradict each other.

        Raises:
            ConfigError: all of them at once.
        """
        is_text = config.env_type == "text"
        kind = "language-model agents" if is_text else f"environment {config.environment.name}"
        faults = [
            Fault(_option(name), f"is not for this run, of {kind}: {reason}", "", _shown(value))
            for name, reason in (_OF_EPISODES if is_text else _OF_TEAMS).items()
            if (value := getattr(self, name)) not in (None, False)
        ]
        if is_text:
            faults += self._text_faults(config)
        if faults:
            raise ConfigError(faults)

    def _text_faults(self, config: RunConfig) -> Iterator[Fault]:
        if self.preset is not None and self.deterministic is not None:
            flag = "--deterministic" if self.deterministic else "--sampled"
            preset = "greedy" if self.deterministic else "sampled"
            yield Fault(
                "--preset", f"and {flag}, which means {preset}: give one of them", "", self.preset
            )
        elif self.passes not in (None, 1) and self._preset(config) == "greedy":
            others = ", ".join(name for name in get_args(Preset) if name != "greedy")
            yield Fault(
                "--passes",
                "must be 1 with preset greedy, whose passes over a problem are all the same; or "
                f"choose --preset {others}",
                "",
                self.passes,
            )

    def _preset(self, config: RunConfig) -> str:
        from heteromark.llm.evaluator import preset_of

        if self.preset is not None:
            return self.preset
        if self.deterministic is not None:
            return "greedy" if self.deterministic else "sampled"
        return preset_of(config.evaluation)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _shown(value: object) -> object:
    """What was given to an option, as messages show it; None: it takes nothing."""
    if value is True:
        return None
    return str(value) if isinstance(value, Path) else value
