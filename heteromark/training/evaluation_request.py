"""The options of `heteromark evaluate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heteromark.config.errors import Fault
from heteromark.config.fields import Seat
from heteromark.config.models.components import EvaluationConfig, EvaluationOpponent, Preset
from heteromark.config.models.run import RunConfig

FINAL, BEST = "final", "best"
FPS = 10


@dataclass(frozen=True)
class EvaluationRequest:
    """Options of the command line.

    If opponent, seat, max_steps, preset or passes is None, the run's evaluation config applies.
    """

    run: str  # run folder, checkpoint file, or (the start of) a digest
    episodes: int = 100  # number to play; for language-model agents: number of problems
    seed: int = 1000
    # most likely actions or responses; None: most likely actions, responses according to `preset`
    deterministic: bool | None = None
    device: str = "auto"
    checkpoint: str = FINAL  # "final", "best", or a file; its path may be relative to the run
    opponent: EvaluationOpponent | None = None
    seat: Seat | None = None
    max_steps: int | None = None
    output: Path | None = None  # file for the report, as JSON
    gif: Path | None = None  # file for an animation of one episode
    fps: int | None = None  # frames per second of the GIF; None: `FPS`
    preset: Preset | None = None  # how responses are sampled
    passes: int | None = None  # attempts per problem
    transcripts: int | None = None  # number of problems whose transcripts are printed
    swap_roles: bool = False  # also evaluate with the policies swapped between roles
    single_agent: bool = False  # the task's last role works alone

    def applied(self, config: RunConfig, **changes: Any) -> EvaluationConfig:
        """Return the run's evaluation config with the options that were given.

        Args:
            changes: override both.
        """
        given = {
            name: value
            for name in ("opponent", "seat", "max_steps", "passes")
            if (value := getattr(self, name)) is not None
        }
        return config.evaluation.model_copy(update={"episodes": self.episodes, **given, **changes})

    def given(self, reasons: Mapping[str, str], agents: str) -> Iterator[Fault]:
        """Yield a fault for each given option that does not apply to a kind of run.

        Args:
            reasons: why an option does not apply, by option.
            agents: the kind of run, for the message.
        """
        for name, reason in reasons.items():
            if (value := getattr(self, name)) not in (None, False):
                message = f"does not apply to a run of {agents}: {reason}"
                if value is True:  # the option takes no value
                    value = None
                elif isinstance(value, Path):
                    value = str(value)
                yield Fault(f"--{name.replace('_', '-')}", message, "", value)
