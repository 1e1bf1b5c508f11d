"""The typed model of `params.yaml`: what the workflow depends on, and what DVC tracks.

A top-level hyperparameter is null by default: "what the base config says". Set, it applies to
every config of the sweep that does not vary it (layer three of five, see `layers`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from heteromark.config.fields import Count, Device, Frozen, Mode, Seed
from heteromark.config.models.agent import Hyperparameters

Statistic = Literal["iqm", "mean", "median", "min"]
SelectionMetric = Literal["evaluation_return", "final_return", "win_rate"]
TieBreak = Literal["slope", "coefficient_of_variation", "frames_per_second", "name"]


def _all_optional(model: type[BaseModel], name: str) -> type[Frozen]:
    """A copy of a model in which every key may be null, with the same types and bounds."""
    fields: dict[str, Any] = {}
    for key, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            section = _all_optional(kind, kind.__name__.replace("Config", "Overrides"))
            fields[key] = (section, section())
        else:
            bounded = Annotated[kind, *field.metadata] if field.metadata else kind
            said = (field.description or "").partition("; null: ")[0] or None  # null is other here
            extra = field.json_schema_extra
            fields[key] = (bounded | None, Field(None, description=said, json_schema_extra=extra))
    doc = f"{model.__name__} for the whole sweep; null: what the base config says."
    return create_model(name, __base__=Frozen, __doc__=doc, **fields)


HyperparameterOverrides = _all_optional(Hyperparameters, "HyperparameterOverrides")


class HalvingParams(Frozen):
    """Successive halving: all configs train a little, the best of them go on, and so on."""

    eta: Annotated[int, Field(ge=2)] = Field(
        2, description="One config in so many goes on to the next rung, which is so often as long."
    )
    min_frames: Count = Field(
        4_000, description="Frames of the first rung, at least; rounded up to whole iterations."
    )
    max_frames: Count | None = Field(
        None, description="Frames of the last rung; null: smoke.total_frames."
    )


class SweepParams(Frozen):
    """What is swept, on what, and how."""

    agents: str | Annotated[list[str], Field(min_length=1)] = Field(
        "config/agents/happo_agent_*.yaml",
        description="Glob pattern, path, or list of them, of the agent configs to compare.",
    )
    base_config: str | None = Field(
        None, description="Base of every variant; null: {agent_id}_v{version} beside it."
    )
    environment: str = Field("skirmish", description="Name of a file in config/environment/.")
    strategy: Literal["grid", "halving"] = Field(
        "grid", description="grid: every config trains the whole smoke; halving: see there."
    )
    halving: HalvingParams = HalvingParams()


class BudgetParams(Frozen):
    """How long the runs of one mode are, and how they are judged."""

    total_frames: Count = Field(description="Frames per run, rounded up to whole iterations.")
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(description="One run per seed.")
    eval_episodes: Count = Field(description="Episodes of the evaluation after training.")

    def misfits(self) -> Iterator[tuple[str, str]]:
        repeated = sorted(seed for seed, count in Counter(self.seeds).items() if count > 1)
        if repeated:
            yield "seeds", f"lists {repeated} more than once; each seed is one run"


class SelectionParams(Frozen):
    """How the winner is found."""

    metric: SelectionMetric = Field(
        "evaluation_return", description="What is compared; larger is better."
    )
    statistic: Statistic = Field("iqm", description="How a config's seeds become one score.")
    tie_break: list[TieBreak] = Field(
        ["slope", "coefficient_of_variation", "name"],
        description="Decides between configs whose scores are equal, in this order.",
    )
    min_seeds: Count = Field(2, description="Configs with fewer completed seeds are left out.")


class ProjectParams(HyperparameterOverrides):
    """All of params.yaml."""

    device: Device = Field("auto", description="auto takes CUDA where it is.")
    num_parallel_envs: Count | None = Field(
        None, description="Environment copies per run; null: what the environment's file says."
    )
    num_threads: Count = Field(1, description="CPU threads per run; part of a run's identity.")
    checkpoint_interval: Count = Field(10, description="Iterations between checkpoints.")
    sweep: SweepParams = SweepParams()
    smoke: BudgetParams = BudgetParams(total_frames=40_000, seeds=[0, 1, 2], eval_episodes=50)
    full: BudgetParams = BudgetParams(total_frames=300_000, seeds=[0], eval_episodes=100)
    selection: SelectionParams = SelectionParams()

    @property
    def rungs(self) -> list[int]:
        """Frames of the sweep's runs after each rung; the smoke alone without halving."""
        if self.sweep.strategy == "grid":
            return [self.smoke.total_frames]
        halving = self.sweep.halving
        frames = [halving.max_frames or self.smoke.total_frames]
        while frames[0] // halving.eta >= halving.min_frames:
            frames.insert(0, frames[0] // halving.eta)
        return frames

    def misfits(self) -> Iterator[tuple[str, str]]:
        count = len(self.smoke.seeds)
        if self.selection.min_seeds > count:
            message = f"smoke.seeds lists only {count}: no config could ever be selected"
            yield "selection.min_seeds", message

    def budget(self, mode: Mode) -> BudgetParams:
        """The budget of a mode."""
        return self.smoke if mode == "smoke" else self.full

    def hyperparameter_overrides(self) -> dict:
        """The set hyperparameters as a nested dictionary, without the null ones."""
        data = self.model_dump(include=set(HyperparameterOverrides.model_fields), exclude_none=True)
        return {key: value for key, value in data.items() if value != {}}
