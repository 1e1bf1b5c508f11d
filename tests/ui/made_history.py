"""Synthetic histories of any size: run folders as training writes them, without training.

The curves are synthetic: they rise with the given speed, and their noise is seeded by the run digest.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from made_language import language_report, language_rows
from projects import ROOT

from heteromark.config.compose.composition import compose_run, load_params
from heteromark.config.compose.layers import resolve_agent
from heteromark.config.files import to_yaml
from heteromark.config.models.agent import AgentConfig
from heteromark.config.models.run import RunConfig
from heteromark.config.nested import merge
from heteromark.runs.digest import config_digest, run_digest
from heteromark.runs.files import sha256_of
from heteromark.runs.record import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    EVALUATION_FILE,
    LOG_FILE,
    METRICS_FILE,
    RUN_FILES,
    AgentIdentity,
    RunRecord,
    RunSummary,
    Status,
)
from heteromark.runs.store import RunStore

GROUPS = {
    "skirmish": ("marauder", "marine", "medivac"),
    "speaker_listener": ("speaker", "listener"),
    "simple_spread": ("agent",),
}
WITH_WINS = ("skirmish",)
FIRST_START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
FRAMES_PER_SECOND = 2000.0


@dataclass(frozen=True)
class RunSpec:
    """Properties of a synthetic run; the rest is derived from its config and seed.

    `share`: share of the iterations that are done. `speed`: how fast the run learns.
    """

    config: RunConfig
    started: datetime = FIRST_START
    status: Status = Status.COMPLETED
    reason: str | None = None
    share: float = 1.0
    speed: float = 1.0


def agent(file: str, **changes) -> AgentConfig:
    """Return an agent config of this repository, with changes."""
    resolved = resolve_agent(ROOT / "config" / "agents" / f"{file}.yaml").agent
    return AgentConfig.model_validate(merge(resolved.model_dump(), changes))


def run_config(
    agent_config: AgentConfig, environment: str = "skirmish", mode: str = "smoke", seed: int = 0
) -> RunConfig:
    """Return the resolved config of one run, as the workflow composes it."""
    params = load_params(ROOT, {"sweep": {"environment": environment}})
    return compose_run(agent_config, params, mode, seed, ROOT)


def make_run(store: RunStore, spec: RunSpec) -> Path:
    """Write the folder of one run into the store, and return it."""
    config = spec.config
    folder = store.folder(run_digest(config))
    folder.mkdir(parents=True)
    rows = rows_of(spec)
    (folder / CONFIG_FILE).write_text(_yaml(config), encoding="utf-8")
    (folder / METRICS_FILE).write_text(metrics_text(rows), encoding="utf-8")
    (folder / LOG_FILE).write_text("a synthetic run\n", encoding="utf-8")
    record = _record(folder.name, spec, len(rows))
    if spec.status.is_final:
        report = _evaluation(spec, rows)
        (folder / EVALUATION_FILE).write_text(json.dumps(report), encoding="utf-8")
        (folder / CHECKPOINT_FILE).write_bytes(b"weights")
        names = [name for name in RUN_FILES if (folder / name).is_file()]
        hashes = {name: sha256_of(folder / name) for name in names}
        summary = _summary(report, rows)
        record = record.model_copy(update={"summary": summary, "files": hashes})
    elif rows:
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / f"iteration_{len(rows):06}.pt").write_bytes(b"checkpoint")
    record.write(folder)
    return folder


def run_specs(number: int, seeds: int = 3) -> Iterator[RunSpec]:
    """Yield runs of HAPPO and MaskablePPO configs on three environments, started an hour apart.

    Most are completed; every 40th failed, every 50th diverged, every 60th was interrupted.
    """
    for index in range(number):
        variant, seed = divmod(index, seeds)
        spec = RunSpec(
            _variant(variant).model_copy(update={"seed": seed}),
            started=FIRST_START + timedelta(hours=index),
            speed=0.5 + variant % 7 / 4,
        )
        if index % 40 == 39:
            spec = replace(spec, status=Status.FAILED, reason="ValueError: made to fail", share=0.4)
        elif index % 50 == 49:
            spec = replace(spec, status=Status.DIVERGED, reason="the loss is NaN", share=0.5)
        elif index % 60 == 59:
            spec = replace(spec, status=Status.INTERRUPTED, reason="ended by SIGTERM", share=0.6)
        yield spec


@functools.cache
def _variant(number: int) -> RunConfig:
    family = ("happo_agent", "ppo_agent")[number % 2]
    environment = list(GROUPS)[number // 2 % len(GROUPS)]
    changes = {
        "name": f"{family} with learning rate {number}",
        "sweep_variant": f"lr_{number:03}",
        "learning_rate": round(1e-4 + 2e-5 * number, 6),
    }
    return run_config(agent(f"{family}_v1", **changes), environment)


@functools.lru_cache(maxsize=8)
def _yaml_without_seed(config: str) -> str:
    return to_yaml(json.loads(config))


def _yaml(config: RunConfig) -> str:
    """Return the text of config.yaml. It is cached over seeds, because it is the slowest step."""
    text = _yaml_without_seed(config.model_copy(update={"seed": 0}).model_dump_json())
    return text.replace("\nseed: 0\n", f"\nseed: {config.seed}\n")


def rows_of(spec: RunSpec) -> list[dict[str, float]]:
    """Return the rows of metrics.csv: the columns that training writes, in its order."""
    config = spec.config
    rng = random.Random(f"{run_digest(config)}")
    wins = config.environment.name in WITH_WINS
    iterations = round(spec.share * config.num_iterations)
    batch = config.collector.frames_per_batch
    if config.env_type == "text":
        return language_rows(config, iterations, spec.speed, rng)
    rows = []
    for iteration in range(1, iterations + 1):
        frames = iteration * batch
        progress = 1 - math.exp(-spec.speed * frames / 40_000)
        row = {
            "iteration": iteration,
            "frames": frames,
            "episodes": 40,
            "episode_return": 2 + 16 * progress + rng.gauss(0, 0.5),
            "episode_length": 50 + rng.gauss(0, 2),
            "win_rate": min(1.0, max(0.0, progress + rng.gauss(0, 0.03))) if wins else math.nan,
        }
        for group in GROUPS[config.environment.name]:
            row |= {
                f"loss_objective/{group}": -0.05 + rng.gauss(0, 0.02),
                f"grad_norm/{group}": 0.3 + rng.gauss(0, 0.03),
                f"entropy/{group}": 1.8 - 1.1 * progress + rng.gauss(0, 0.02),
                f"kl_approx/{group}": abs(0.012 + rng.gauss(0, 0.003)),
                f"clip_fraction/{group}": abs(0.15 + rng.gauss(0, 0.03)),
            }
        rows.append(
            row
            | {
                "loss_critic": 0.3 * (1 - progress) + abs(rng.gauss(0, 0.01)),
                "explained_variance": 0.9 * progress + rng.gauss(0, 0.02),
                "learning_rate": config.agent.learning_rate,
                "time_elapsed": frames / FRAMES_PER_SECOND,
                "frames_per_second": FRAMES_PER_SECOND + rng.gauss(0, 100),
            }
        )
    return rows


def metrics_text(rows: list[dict[str, float]]) -> str:
    """Return the text of metrics.csv: full precision, empty cells where nothing was measured."""
    text = io.StringIO()
    if rows:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows(
            ["" if math.isnan(value) else repr(value) for value in row.values()] for row in rows
        )
    return text.getvalue()


def _evaluation(spec: RunSpec, rows: list[dict[str, float]]) -> dict:
    config = spec.config
    rng = random.Random(f"evaluation {run_digest(config)}")
    episodes = 0 if spec.status is Status.DIVERGED else config.evaluation.episodes
    last = rows[-1]
    returns = [last["episode_return"] + 1 + rng.gauss(0, 3) for _ in range(episodes)]
    wins = None
    if episodes and config.environment.name in WITH_WINS:
        wins = [rng.random() < last["win_rate"] for _ in range(episodes)]
    if config.env_type == "text" and episodes:
        return language_report(config, last["win_rate"], rng)
    return {
        "episodes": episodes,
        "deterministic": True,
        "seed": config.seed,
        "max_steps": None,
        "returns": returns,
        "lengths": [50] * episodes,
        "wins": wins,
        "cut_off": 0,
        "return_mean": sum(returns) / episodes if episodes else None,
        "return_std": 3.0 if episodes else None,
        "length_mean": 50.0 if episodes else None,
        "win_rate": sum(wins) / episodes if wins else None,
    }


def _summary(report: dict, rows: list[dict[str, float]]) -> RunSummary:
    late = [row["episode_return"] for row in rows[-max(1, len(rows) // 10) :]]
    return RunSummary(
        final_return=sum(late) / len(late),
        evaluation_return=report["return_mean"],
        evaluation_win_rate=report["win_rate"],
        evaluation_episodes=report["episodes"],
        frames=rows[-1]["frames"],
        iterations=len(rows),
        frames_per_second=FRAMES_PER_SECOND,
    )


def _record(digest: str, spec: RunSpec, iterations: int) -> RunRecord:
    config, agent_config = spec.config, spec.config.agent
    ended = spec.status is not Status.RUNNING
    seconds = iterations * config.collector.frames_per_batch / FRAMES_PER_SECOND
    suffix = f"sweep_{agent_config.sweep_variant}"
    if agent_config.sweep_variant is None:
        suffix = f"v{agent_config.version}"
    path = f"config/agents/{agent_config.agent_id}_{suffix}.yaml"
    return RunRecord(
        digest=digest,
        config_digest=config_digest(config),
        agent=AgentIdentity(
            short_name=agent_config.short_name,
            config_path=path,
            **agent_config.model_dump(
                include={"agent_id", "name", "algorithm", "version", "sweep_variant"}
            ),
        ),
        environment=config.environment.name,
        kind=config.kind,
        mode=config.mode,
        seed=config.seed,
        status=spec.status,
        reason=spec.reason,
        started=spec.started.isoformat(timespec="seconds"),
        ended=(spec.started + timedelta(seconds=seconds)).isoformat(timespec="seconds")
        if ended
        else None,
        duration_seconds=seconds if ended else None,
        host="host",
        pid=None if ended else 1,
        device="cpu",
        versions={"python": "3.11.7", "torch": "2.13.0"},
        command=["heteromark", "train", "--agent-config", path, "--seed", str(config.seed)],
    )
