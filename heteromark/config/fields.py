"""Types of config values (component names, bounded numbers) and the base class of the models."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveInt,
    model_validator,
)
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from heteromark.config.nested import value_at

_IMPORT_PATH = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"


def is_import_path(value: str) -> bool:
    """Return whether a value is an import path, `module:attribute`, of a custom component."""
    return re.match(_IMPORT_PATH, value) is not None


def selector(*names: str) -> Any:
    """Return the type of a key that selects a component by name or by import path."""

    def check(value: str) -> str:
        if value in names or is_import_path(value):
            return value
        raise ValueError(
            f"must be one of {', '.join(names)}; or your own import path, `module:attribute`"
        )

    schema: JsonDict = {"anyOf": [{"enum": [*names]}, {"pattern": _IMPORT_PATH}]}
    return Annotated[str, AfterValidator(check), Field(json_schema_extra=schema)]


PolicyType = selector("mlp", "gru", "cnn", "text")
NetworkType = selector("MlpPolicy", "GruPolicy", "CnnPolicy", "TextPolicy")
OptimizerType = selector("adam", "adamw", "sgd", "rmsprop")
Mode = Literal["smoke", "full"]
Device = Literal["auto", "cpu", "cuda"]
Opponent = Literal["self", "random", "heuristic", "past_self"]
Seat = Literal["first", "second", "alternate"]
LoggingBackend = Literal["tensorboard", "wandb", "mlflow"]

# The policy_type that builds each value of network.policy in an agent config.
POLICY_TYPE_OF_NETWORK: dict[str, str] = {
    "MlpPolicy": "mlp",
    "GruPolicy": "gru",
    "CnnPolicy": "cnn",
    "TextPolicy": "text",
}
NETWORK_OF_POLICY_TYPE = {kind: network for network, kind in POLICY_TYPE_OF_NETWORK.items()}


def _lower(value: Any) -> Any:
    """Accept torch's spelling, `ReLU`."""
    return value.lower() if isinstance(value, str) else value


def _no_bool(value: Any) -> Any:
    """Refuse booleans, which Python treats as 0 and 1: `learning_rate: yes` is a mistake."""
    if isinstance(value, bool):
        raise ValueError("Input should be a number, not true or false")
    return value


def _countable(value: int) -> int:
    if value > MAX_COUNT:
        raise ValueError(f"Input should be at most {MAX_COUNT:,}")
    return value


Activation = Annotated[
    Literal["tanh", "relu", "elu", "gelu", "leaky_relu", "selu", "sigmoid"], BeforeValidator(_lower)
]
Number = BeforeValidator(_no_bool)
LearningRate = Annotated[float, Field(gt=0, le=1), Number]
Discount = Annotated[float, Field(ge=0, le=1), Number]
Probability = Annotated[float, Field(ge=0, le=1), Number]
ClipRange = Annotated[float, Field(gt=0, lt=1), Number]
PositiveNumber = Annotated[float, Field(gt=0), Number]
NaturalNumber = Annotated[int, Field(ge=0), Number]
MAX_COUNT = 10**12
Count = Annotated[PositiveInt, AfterValidator(_countable), Number]
Coefficient = Annotated[NonNegativeFloat, Number]
LayerSizes = Annotated[list[Count], Field(min_length=1, max_length=16)]
Seed = Annotated[int, Field(ge=0, lt=2**32), Number]
ImportPath = Annotated[str, Field(pattern=_IMPORT_PATH)]
UnitType = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]


def batch_size_conflict(minibatch: int, batch: int, batch_key: str) -> str:
    """Say why a minibatch size does not divide the batch, with valid sizes; empty if it does.

    Args:
        minibatch: frames per minibatch.
        batch: frames per batch.
        batch_key: the config key that sets `batch`, for the message.
    """
    if batch % minibatch == 0:
        return ""
    if minibatch > batch:
        problem = f"must be at most {batch_key}, which is {batch}"
    else:
        problem = f"must divide {batch_key}, which is {batch}"
    return (
        f"{problem}. {nearest_divisors(minibatch, batch)}; or set {batch_key} to "
        f"{nearest_multiples(batch, minibatch)}"
    )


def nearest_divisors(value: int, *wholes: int) -> str:
    """Return the common divisors of `wholes` closest to `value`, as `Nearest valid: 16 or 32`."""
    whole = math.gcd(*wholes)
    if whole > MAX_COUNT:
        return f"Choose a divisor of {whole}"
    small = [size for size in range(1, math.isqrt(whole) + 1) if whole % size == 0]
    divisors = sorted({*small, *(whole // size for size in small)})
    below = [size for size in divisors if size < value][-1:]
    above = [size for size in divisors if size > value][:1]
    return f"Nearest valid: {' or '.join(map(str, below + above))}"


def nearest_multiples(value: int, unit: int) -> str:
    """Return the multiples of `unit` closest to `value`, as `48 or 72`."""
    below = value - value % unit
    return " or ".join(str(size) for size in (below, below + unit) if size)


class Frozen(BaseModel):
    """Base of all config models: immutable, without unknown keys, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield conflicts between values: the key to change, and the message.

        Validation reports only the first.
        """
        return iter(())

    @model_validator(mode="after")
    def _check_conflicts(self) -> Self:
        for key, message in self.conflicts():
            context = {"key": key, "value": value_at(self, key), "message": message}
            raise PydanticCustomError("cross_field", "{message}", context)
        return self
