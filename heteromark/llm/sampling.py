"""Responses of a causal language model, and their log-probabilities.

Padding: prompts on the left, responses on the right. Positions count real tokens only, so padding
changes nothing. Log-probabilities are of the logits over the temperature: of the distribution that
is sampled from, unless `Generation` leaves out unlikely tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, TopKLogitsWarper, TopPLogitsWarper

from heteromark.llm.batches import distinct_rows


class Responses(NamedTuple):
    """Sampled responses, `samples` to each prompt, those of one prompt next to each other.

    Attributes:
        ids: `[prompts * samples, length]`, padded on the right; the end-of-sequence token, where
            one was sampled, is part of a response.
        mask: the same shape: true at the tokens of a response.
        log_prob: the same shape: of each token when it was sampled, among all tokens; 0 beyond the
            mask.
        is_cut_off: `[prompts * samples]`: whether the longest length ended a response.
    """

    ids: Tensor
    mask: Tensor
    log_prob: Tensor
    is_cut_off: Tensor


@dataclass(frozen=True)
class Generation:
    """Which tokens are sampled among, and how.

    Training samples among all tokens, at the policy's own temperature: the ratio of its loss takes
    log_prob to be exact.

    Attributes:
        temperature: 0: the most likely token each time; None: the one that the policy trains with.
        top_k: only this many of the most likely tokens (and those as likely as the last of them);
            1: the most likely one each time; None: all.
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


@dataclass(frozen=True, kw_only=True)
class Request:
    """What responses are asked for.

    Attributes:
        samples: responses per prompt.
        max_prompt_length, max_response_length: in tokens.
        generation: how they are sampled.
        generator: on the model's device; None: torch's global one.
    """

    samples: int
    max_prompt_length: int
    max_response_length: int
    generation: Generation = Generation()
    generator: torch.Generator | None = None


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    request: Request,
    *,
    end_id: int,
    pad_id: int,
) -> Responses:
    """Sample responses; each prompt is read once, however many responses it gets.

    Args:
        prompt_ids: `[prompts, length]`, padded on the left.
        prompt_mask: the same shape: true at the tokens of a prompt.
        request: with a temperature.
        end_id: the token that ends a response.
        pad_id: fills up; it may equal `end_id`, since masks do not depend on it.
    """
    samples, max_length = request.samples, request.max_response_length
    cache = DynamicCache(config=model.config)
    positions = _positions(prompt_mask)
    logits = model(
        input_ids=prompt_ids,
        attention_mask=prompt_mask.long(),
        position_ids=positions,
        past_key_values=cache,
        logits_to_keep=1,
    ).logits[:, -1]
    cache.batch_repeat_interleave(samples)
    logits = logits.repeat_interleave(samples, 0)
    attended = prompt_mask.repeat_interleave(samples, 0)
    position = positions[:, -1:].repeat_interleave(samples, 0)
    responses = len(attended)
    ids = prompt_ids.new_full((responses, max_length), pad_id)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    log_probs = torch.zeros_like(ids, dtype=torch.float32)
    is_cut_off = mask.new_ones(responses)
    # rows: which responses are computed; is_open: which of these go on
    rows, is_open = torch.arange(responses, device=ids.device), is_cut_off
    for step in range(max_length):
        token, log_prob = draw(logits, request)
        token = torch.where(is_open, token, pad_id)
        ids[rows, step], mask[rows, step] = token, is_open
        log_probs[rows, step] = log_prob.masked_fill(~is_open, 0.0)
        attended = torch.cat([attended, is_open.unsqueeze(-1)], -1)
        is_open = is_open & (token != end_id)
        is_cut_off = is_cut_off.index_copy(0, rows, is_open)
        going_on = int(is_open.sum())
        if step == max_length - 1 or not going_on:
            break
        if 2 * going_on <= len(rows):  # the others would be computed for nothing
            kept = is_open.nonzero().squeeze(-1)
            cache.batch_select_indices(kept)
            rows, token, attended, position, is_open = (
                each[kept] for each in (rows, token, attended, position, is_open)
            )
        position = position + 1
        logits = model(
            input_ids=token.unsqueeze(-1),
            attention_mask=attended.long(),
            position_ids=position,
            past_key_values=cache,
        ).logits[:, -1]
    made = (each[:, : step + 1].contiguous() for each in (ids, mask, log_probs))
    return Responses(*made, is_cut_off)


def response_log_probs(
    model: PreTrainedModel,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    response_ids: Tensor,
    response_mask: Tensor,
    temperature: float,
) -> Tensor:
    """Log-probabilities of the tokens of responses: `[responses, length]`, 0 beyond the mask.

    A prompt that several responses have is read once.
    """
    first, kind = distinct_rows(prompt_ids.masked_fill(~prompt_mask, -1))
    width, length = prompt_ids.shape[-1], response_ids.shape[-1]
    mask = torch.cat([prompt_mask, response_mask], -1)
    positions = _positions(mask)
    if len(first) == len(prompt_ids) or length == 1:
        logits = model(
            input_ids=torch.cat([prompt_ids, response_ids], -1),
            attention_mask=mask.long(),
            position_ids=positions,
            use_cache=False,
            logits_to_keep=length + 1,
        ).logits[:, :-1]
    else:
        cache = DynamicCache(config=model.config)
        begun = model(
            input_ids=prompt_ids[first],
            attention_mask=prompt_mask[first].long(),
            position_ids=positions[first, :width],
            past_key_values=cache,
            logits_to_keep=1,
        ).logits
        cache.batch_select_indices(kind)
        rest = model(
            input_ids=response_ids[:, :-1],
            attention_mask=mask[:, :-1].long(),
            position_ids=positions[:, width:-1],
            past_key_values=cache,
        ).logits
        logits = torch.cat([begun[kind], rest], 1)
    return log_probs_of(response_ids, logits, temperature).masked_fill(~response_mask, 0.0)


def draw(logits: Tensor, request: Request) -> tuple[Tensor, Tensor]:
    """Tokens and their log-probabilities among all, `[rows]`, from logits `[rows, vocabulary]`."""
    how = request.generation
    log_probs = _log_softmax(logits, how.temperature)
    if how.temperature == 0 or how.top_k == 1:
        token = logits.argmax(-1)
    else:
        weights = log_probs
        # their first argument, in the library's words the tokens so far, is not used
        if how.top_k is not None:
            weights = TopKLogitsWarper(how.top_k)(logits, weights)
        if how.top_p < 1:
            weights = TopPLogitsWarper(how.top_p)(logits, weights)
        token = torch.multinomial(weights.exp(), 1, generator=request.generator).squeeze(-1)
    return token, _chosen(log_probs, token)


def log_probs_of(ids: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Of tokens, `[...]`, given logits `[..., vocabulary]`."""
    return _chosen(_log_softmax(logits, temperature), ids)


def _chosen(log_probs: Tensor, ids: Tensor) -> Tensor:
    return log_probs.gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    # greedy responses are told with the probabilities of temperature 1
    return (logits.float() / (temperature or 1.0)).log_softmax(-1)


def _positions(mask: Tensor) -> Tensor:
    """Places of tokens among the real ones; padding stands at the first."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)
