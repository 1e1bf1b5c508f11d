"""Batches of prompts and responses of different lengths."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torch.nn.functional import pad

# Prompt tensors are padded on the left; response tensors on the right.
PROMPT_KEYS = ("prompt_ids", "prompt_mask")
RESPONSE_KEYS = ("action", "response_mask", "log_prob", "reference_log_prob", "weight")


def concatenate(batches: Sequence[TensorDictBase]) -> TensorDict:
    """Concatenate batches, padded with zeros to the longest prompt and the longest response."""
    width, length = (
        max(each[key].shape[-1] for each in batches) for key in ("prompt_ids", "action")
    )
    return torch.cat([_padded(each, width, length) for each in batches])


def trimmed(batch: TensorDictBase) -> TensorDict:
    """Return the batch without the columns that are padding in every row."""
    width = int(batch["prompt_mask"].sum(-1).max())
    length = int(batch["response_mask"].sum(-1).max())
    cut = {key: batch[key][:, -width:] for key in PROMPT_KEYS}
    cut |= {key: batch[key][:, :length] for key in RESPONSE_KEYS if key in batch}
    return batch.copy().update(cut)


def distinct_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Find the distinct rows of a matrix `[rows, columns]`.

    Returns:
        The index of the first occurrence of each distinct row, in ascending order, `[distinct]`;
        and for every row the number of its distinct row, `[rows]`.
    """
    _, kind = values.unique(dim=0, return_inverse=True)
    rows = torch.arange(len(values), device=kind.device)
    first = rows.new_zeros(int(kind.max()) + 1)
    first = first.scatter_reduce(0, kind, rows, "amin", include_self=False)
    order = first.argsort()
    return first[order], order.argsort()[kind]


def merged(batch: TensorDictBase) -> TensorDict:
    """Merge repeated responses of a group, so that each is computed once.

    A low-entropy policy repeats its responses. Repeated rows become one row whose weight is the sum
    of theirs, so weighted sums over the rows do not change.

    Args:
        batch: with group_id, advantage and weight. Rows with the same group_id, advantage and
            response are merged; they must have the same weight.

    Returns:
        The first row of each kind, in order, with count `[rows]`: the number of rows merged.
    """
    _, level = batch["advantage"].unique(return_inverse=True)
    responses = batch["action"].masked_fill(~batch["response_mask"], -1)
    keys = torch.cat([torch.stack([batch["group_id"], level], -1), responses], -1)
    first, kind = distinct_rows(keys)
    result, count = batch[first], kind.bincount()
    return result.update({"weight": result["weight"] * count.unsqueeze(-1), "count": count})


def micro_batches(batch: TensorDictBase, rows: int) -> Iterator[TensorDict]:
    """Split a batch into parts of `rows` rows; rows of similar length share a part.

    Each part is trimmed to its own longest prompt and response.
    """
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
