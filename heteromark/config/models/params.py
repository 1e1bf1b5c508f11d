"""The typed model of `params.yaml`, the parameters of the workflow, which DVC tracks.

Top-level hyperparameters are null by default, so the base config's values apply. If set, they
override the base configs, but not the keys that a variant changes (the third of five layers, see
`layers`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from heteromark.config.fields import Count, Device, Frozen, Mode, Seed
from heteromark.config.models.agent import Hyperparameters

Statistic = Literal["iqm", "mean", "median", "min"]
SelectionMetric = Literal["evaluation_return", "final_return", "win_rate"]
TieBreak = Literal["slope", "coefficient_of_variation", "frames_per_second", "name"]


def _all_optional(model: type[BaseModel], name: str) -> type[Frozen]:
    """Return a copy of a model in which every key may be null, with the same types and bounds."""
    fields: dict[str, Any] = {}
    for key, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            section = _all_optional(kind, kind.__name__.replace("Config", "Overrides"))
            fields[key] = (section, section())
        else:
            bounded: Any = Annotated[kind, *field.metadata] if field.metadata else kind
            # The part on null is dropped: in params.yaml, null means "not overridden".
            description = (field.description or "").partition("; null: ")[0] or None
            extra = field.json_schema_extra
            fields[key] = (
                bounded | None,
                Field(None, description=description, json_schema_extra=extra),
            )
    doc = f"{model.__name__} for the whole sweep; null: use the base config's value."
    return create_model(name, __base__=Frozen, __doc__=doc, **fields)


def _without_empty(data: dict[str, Any]) -> dict[str, Any]:
    """Return nested data without its empty sections."""
    pruned = {
        key: _without_empty(value) if isinstance(value, dict) else value
        for key, value in data.items()
    }
    return {key: value for key, value in pruned.items() if value != {}}


if TYPE_CHECKING:

    class HyperparameterOverrides(Frozen):
        """Hyperparameters in which every key may be null."""

else:
    HyperparameterOverrides = _all_optional(Hyperparameters, "HyperparameterOverrides")


class HalvingParams(Frozen):
    """Successive halving: train all configs briefly, continue only with the best, and repeat."""

    eta: Annotated[int, Field(ge=2)] = Field(
        2,
        description="Keep the best 1/eta of the configs at each rung; each rung is eta times "
        "longer.",
    )
    min_frames: Count = Field(
        4_000,
        description="Minimum frames per run in the first rung, rounded up to whole iterations.",
    )
    max_frames: Count | None = Field(
        None, description="Frames per run in the last rung; null: smoke.total_frames."
    )


class SweepParams(Frozen):
    """The agent configs, environment and strategy of the sweep."""

    agents: str | Annotated[list[str], Field(min_length=1)] = Field(
        "config/agents/happo_agent_*.yaml",
        description="Agent configs to compare: a glob pattern, a path, or a list of both.",
    )
    base_config: str | None = Field(
        None,
        description="Base config of all variants; null: {agent_id}_v{version} in the variant's "
        "folder.",
    )
    environment: str = Field("skirmish", description="Name of a file in config/environment/.")
    strategy: Literal["grid", "halving"] = Field(
        "grid",
        description="grid: train every config for smoke.total_frames; halving: successive halving, "
        "which stops weak configs early.",
    )
    halving: HalvingParams = HalvingParams()


class BudgetParams(Frozen):
    """The training and evaluation budget of the runs of one mode."""

    total_frames: Count = Field(
        description="Training frames per run, rounded up to whole iterations."
    )
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(description="One run per seed.")
    eval_episodes: Count = Field(description="Episodes of the evaluation after training.")

    def conflicts(self) -> Iterator[tuple[str, str]]:
        repeated = sorted(seed for seed, count in Counter(self.seeds).items() if count > 1)
        if repeated:
            yield "seeds", f"contains {repeated} more than once; each seed must be unique"


class SmokeParams(BudgetParams):
    """The short runs that the configs are compared by."""

    cohort: Literal["auto"] | Count = Field(
        "auto",
        description="Number of runs that one process trains together, with the same results in "
        "less time. auto: spread the runs evenly over the cores; 1: each run has its own process.",
    )


class SelectionParams(Frozen):
    """The selection of the best config."""

    metric: SelectionMetric = Field(
        "evaluation_return", description="Metric to compare; higher is better."
    )
    statistic: Statistic = Field(
        "iqm",
        description="Aggregates a config's seeds into one score. iqm: the interquartile mean.",
    )
    tie_break: list[TieBreak] = Field(
        ["slope", "coefficient_of_variation", "name"],
        description="Criteria for configs with equal scores, in this order.",
    )
    min_seeds: Count = Field(2, description="Skip configs with fewer completed seeds.")


class ProjectParams(HyperparameterOverrides):
    """All of params.yaml."""

    device: Device = Field("auto", description="auto: CUDA if available, else the CPU.")
    num_parallel_envs: Count | None = Field(
        None, description="Environment copies per run; null: the value in the environment's file."
    )
    num_threads: Count = Field(
        1, description="CPU threads per run. A different value makes it a different run."
    )
    checkpoint_interval: Count = Field(10, description="Iterations between checkpoints.")
    sweep: SweepParams = SweepParams()
    smoke: SmokeParams = SmokeParams(total_frames=40_000, seeds=[0, 1, 2], eval_episodes=50)
    full: BudgetParams = BudgetParams(total_frames=300_000, seeds=[0], eval_episodes=100)
    selection: SelectionParams = SelectionParams()

    @property
    def rungs(self) -> list[int]:
        """Total frames per run at the end of each rung; without halving, only those of smoke."""
        if self.sweep.strategy == "grid":
            return [self.smoke.total_frames]
        halving = self.sweep.halving
        frames = [halving.max_frames or self.smoke.total_frames]
        while frames[0] // halving.eta >= halving.min_frames:
            frames.insert(0, frames[0] // halving.eta)
        return frames

    def conflicts(self) -> Iterator[tuple[str, str]]:
        count = len(self.smoke.seeds)
        if self.selection.min_seeds > count:
            message = (
                f"must be at most {count}, the number of smoke.seeds; otherwise no config can be "
                "selected"
            )
            yield "selection.min_seeds", message

    def budget(self, mode: Mode) -> BudgetParams:
        """Return the budget of a mode."""
        return self.smoke if mode == "smoke" else self.full

    def hyperparameter_overrides(self) -> dict[str, Any]:
        """Return the hyperparameters that are not null, as a nested dictionary."""
        data = self.model_dump(include=set(HyperparameterOverrides.model_fields), exclude_none=True)
        return _without_empty(data)
