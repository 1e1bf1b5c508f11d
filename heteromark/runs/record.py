"""The run record: the content of each run's `run.json` (the TrainingRun record)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from heteromark.config.models.algorithms import NETWORKS
from heteromark.runs.files import write_text_atomic

RECORD_VERSION = 1

# The files of a run's folder; README, "What a run leaves behind", describes them.
RECORD_FILE = "run.json"
CONFIG_FILE = "config.yaml"
METRICS_FILE = "metrics.csv"
EVALUATION_FILE = "evaluation.json"
CHECKPOINT_FILE = "checkpoint.pt"
BEST_FILE = "best.pt"  # only for runs that are evaluated during training
LOG_FILE = "train.log"

# The files of a finished run, without its record.
RUN_FILES = (
    CONFIG_FILE,
    METRICS_FILE,
    EVALUATION_FILE,
    CHECKPOINT_FILE,
    BEST_FILE,
    LOG_FILE,
)

RESULTS = Path("results")
FOLDER_OF_MODE = {"smoke": "smoke", "full": "train"}

# What trains: torch, or a stand-in that invents figures, for tests of everything around a training.
TORCH, STUB = "torch", "stub"
TRAINER_VARIABLE = "HETEROMARK_TRAINER"

# Columns of metrics.csv that depend on the machine's speed and differ between identical runs.
WALL_CLOCK_COLUMNS = ("time_elapsed", "frames_per_second")


def run_folder(mode: str, name: str, digest: str, seed: int) -> Path:
    """Return `results/smoke/{name}-{digest}/seed_{seed}`; full runs lie in `results/train`."""
    return RESULTS / FOLDER_OF_MODE[mode] / f"{name}-{digest}" / f"seed_{seed}"


class Status(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"

    @property
    def is_final(self) -> bool:
        """Whether the run is finished: the run store returns it, and it is never trained again."""
        return self in (Status.COMPLETED, Status.DIVERGED)


class AgentIdentity(BaseModel):
    """The trained agent: names for display and filtering."""

    agent_id: str
    name: str
    short_name: str
    algorithm: str
    version: int
    sweep_variant: str | None
    config_path: str | None


class RunSummary(BaseModel):
    """The figures shown in a list of runs. `None`: not measured, e.g. no episode ended."""

    final_return: float | None = None
    evaluation_return: float | None = None
    evaluation_win_rate: float | None = None
    evaluation_episodes: int = 0
    best_evaluation_return: float | None = None
    best_iteration: int | None = None
    frames: int = 0
    iterations: int = 0
    frames_per_second: float | None = None


@dataclass(frozen=True)
class Outcome:
    """How a run ended: completed, or diverged with the reason.

    `notes` says what a reader of the results should know. `borrowed` are the seconds that the run's
    last step took in the turns of other runs, or below 0, those that it spent for them.
    """

    status: Status
    reason: str | None
    summary: RunSummary
    device: str
    notes: tuple[str, ...] = ()
    borrowed: float = 0.0


class ContinuedRun(BaseModel):
    """The shorter run that a run continued, and the iteration it continued from."""

    digest: str
    iteration: int


class RunRecord(BaseModel):
    """One training of one resolved config with one seed in one mode.

    `kind` is the kind of agents: networks or llm. `notes` says what a reader of the results should
    know, such as a resume that was not exact. `used` has the SHA-256 of the user's files in the
    run's identity, see `runs.seal`. `trainer` is "stub" if the figures are invented
    (see `commands.stub`). Times are ISO 8601 in UTC, durations are seconds of wall-clock time over
    all attempts.
    """

    model_config = ConfigDict(extra="ignore")

    record_version: int = RECORD_VERSION
    digest: str
    config_digest: str
    trajectory: str | None = None
    agent: AgentIdentity
    environment: str
    kind: str = NETWORKS
    trainer: str = TORCH
    mode: str
    seed: int
    status: Status
    reason: str | None = None
    started: str
    ended: str | None = None
    duration_seconds: float | None = None
    attempts: int = 1
    continued: ContinuedRun | None = None
    host: str
    pid: int | None = None
    device: str | None = None
    notes: tuple[str, ...] = ()
    used: dict[str, str | None] = {}
    git: dict[str, Any] = {}
    versions: dict[str, str] = {}
    command: list[str] = []
    summary: RunSummary = RunSummary()
    files: dict[str, str] = {}

    @classmethod
    def read(cls, folder: Path) -> RunRecord:
        """Read `folder/run.json`.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: it is not a run record (pydantic's ValidationError is a ValueError).
        """
        return cls.model_validate_json((Path(folder) / RECORD_FILE).read_text(encoding="utf-8"))

    def write(self, folder: Path) -> None:
        """Write `folder/run.json` atomically."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
        write_text_atomic(Path(folder) / RECORD_FILE, text)
