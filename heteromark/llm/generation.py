"""How responses are sampled when a team is evaluated. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Generation:
    """Which tokens are sampled among, and how.

    Attributes:
        temperature: 0: the most likely token each time; None: the one that the policy trains with.
        top_k: only the so many most likely tokens; 1: the most likely one each time; None: all.
        top_p: and only the fewest that together have at least this probability; 1: all.

    Raises:
        ValueError: one of them is out of its range.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature is not None and self.temperature < 0:
            raise ValueError(
                f"temperature is {self.temperature}: it must be 0 (the most likely token), more, "
                "or None (the policy's own)"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}: it must be at least 1, or None for all")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it must be above 0, and 1 (for all) or less")


# greedy, standard and liberal in the spirit of agent-tunix. Passes of greedy are all the same.
# sampled is what the policy trains with: the others tell less of what an update changed.
PRESETS: Mapping[str, Generation] = MappingProxyType(
    {
        "greedy": Generation(temperature=1e-4, top_k=1),
        "standard": Generation(temperature=0.7, top_k=50, top_p=0.95),
        "liberal": Generation(temperature=0.85, top_k=2000),
        "sampled": Generation(),
    }
)
