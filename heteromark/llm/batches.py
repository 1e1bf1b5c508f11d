"""Batches of prompts and responses of different lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torch.nn.functional import pad

# What is as long as the prompts and stands at their right; what is as long as the responses.
PROMPT_KEYS = ("prompt_ids", "prompt_mask")
RESPONSE_KEYS = ("action", "response_mask", "log_prob", "reference_log_prob", "weight")


def concatenate(batches: Sequence[TensorDictBase]) -> TensorDict:
    """One batch of several, padded with zeros to the longest prompt and the longest response."""
    width, length = (
        max(each[key].shape[-1] for each in batches) for key in ("prompt_ids", "action")
    )
    return torch.cat([_padded(each, width, length) for each in batches])


def trimmed(batch: TensorDictBase) -> TensorDict:
    """The batch without columns that are padding in every row."""
    width = int(batch["prompt_mask"].sum(-1).max())
    length = int(batch["response_mask"].sum(-1).max())
    cut = {key: batch[key][:, -width:] for key in PROMPT_KEYS}
    cut |= {key: batch[key][:, :length] for key in RESPONSE_KEYS if key in batch}
    return batch.copy().update(cut)


def distinct_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Where each kind of row of `[rows, columns]` stands first, in order, and each row's kind."""
    _, kind = values.unique(dim=0, return_inverse=True)
    places = torch.arange(len(values), device=kind.device)
    first = places.new_zeros(int(kind.max()) + 1)
    first = first.scatter_reduce(0, kind, places, "amin", include_self=False)
    order = first.argsort()
    return first[order], order.argsort()[kind]


def merged(batch: TensorDictBase) -> TensorDict:
    """The batch with a response that a group holds several times computed once.

    A policy that is sure of itself says the same again and again. Such rows become one, which
    counts what they counted together, so that a weighted sum over the rows stays what it was.

    Args:
        batch: with group_id, advantage and weight; rows are alike if they agree in the first two
            and in the response, and then they count the same.

    Returns:
        the first row of each kind, in order, with count: how many there were.
    """
    _, level = batch["advantage"].unique(return_inverse=True)
    said = batch["action"].masked_fill(~batch["response_mask"], -1)
    alike = torch.cat([torch.stack([batch["group_id"], level], -1), said], -1)
    first, kind = distinct_rows(alike)
    found, count = batch[first], kind.bincount()
    return found.update({"weight": found["weight"] * count.unsqueeze(-1), "count": count})


def micro_batches(batch: TensorDictBase, rows: int) -> Iterator[TensorDict]:
    """Parts of so many rows, each without needless padding: rows of similar length go together."""
    lengths = batch["prompt_mask"].sum(-1) + batch["response_mask"].sum(-1)
    for part in lengths.argsort(stable=True).split(rows):
        yield trimmed(batch[part])


def _padded(batch: TensorDictBase, width: int, length: int) -> TensorDict:
    def stretch(values: Tensor, left: int, right: int) -> Tensor:
        return pad(values, (left, right)) if left or right else values

    longer = {key: stretch(batch[key], width - batch[key].shape[-1], 0) for key in PROMPT_KEYS} | {
        key: stretch(batch[key], 0, length - batch[key].shape[-1])
        for key in RESPONSE_KEYS
        if key in batch
    }
    return batch.copy().update(longer)
