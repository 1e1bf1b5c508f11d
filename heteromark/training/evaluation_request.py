"""What `heteromark evaluate` is asked for."""

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

    Opponent, seat, max_steps, preset and passes that are None are as in the run's own evaluation.
    """

    run: str  # run folder, checkpoint file, or (the start of) a digest
    episodes: int = 100  # to be played; for language-model agents: problems to be worked on
    seed: int = 1000
    # most likely actions, or responses; None: most likely actions, but responses as `preset` says
    deterministic: bool | None = None
    device: str = "auto"
    checkpoint: str = FINAL  # "final", "best", or a file, as such or in the run's folder
    opponent: EvaluationOpponent | None = None
    seat: Seat | None = None
    max_steps: int | None = None
    output: Path | None = None  # receives the figures as JSON
    gif: Path | None = None  # receives a picture of one episode
    fps: int | None = None  # frames a second of the picture; None: `FPS`
    preset: Preset | None = None  # how responses are sampled
    passes: int | None = None  # how often each problem is worked on
    transcripts: int | None = None  # of how many problems what was said is shown
    swap_roles: bool = False  # evaluate with the roles filled otherwise, too
    single_agent: bool = False  # the task's last role works alone

    def applied(self, config: RunConfig, **changes: Any) -> EvaluationConfig:
        """The evaluation of a run's config, with what was asked for.

        Args:
            changes: win over both.
        """
        asked = {
            name: value
            for name in ("opponent", "seat", "max_steps", "passes")
            if (value := getattr(self, name)) is not None
        }
        return config.evaluation.model_copy(update={"episodes": self.episodes, **asked, **changes})

    def given(self, reasons: Mapping[str, str], agents: str) -> Iterator[Fault]:
        """A fault for each option that was given and that a kind of run does not know.

        Args:
            reasons: by option, why it does not.
            agents: what the run is of.
        """
        for name, reason in reasons.items():
            if (value := getattr(self, name)) not in (None, False):
                message = f"is not for this run, of {agents}: {reason}"
                if value is True:  # the option takes no value
                    value = None
                elif isinstance(value, Path):
                    value = str(value)
                yield Fault(f"--{name.replace('_', '-')}", message, "", value)
