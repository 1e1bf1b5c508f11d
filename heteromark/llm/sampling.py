"""Sample responses of a causal language model and compute their log-probabilities.

Prompts are padded on the left, responses on the right. Positions count real tokens only, so padding
has no effect. Log-probabilities are those of the logits divided by the temperature. This is the
sampling distribution unless `Generation` excludes unlikely tokens (top_k, top_p).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import DynamicCache, TopKLogitsWarper, TopPLogitsWarper

from heteromark.llm.batches import distinct_rows


class Responses(NamedTuple):
    """Sampled responses, `samples` per prompt; the responses to one prompt are adjacent.

    Attributes:
        ids: `[prompts * samples, length]`, padded on the right. A sampled end-of-sequence token is
            part of the response.
        mask: same shape; True at the tokens of a response.
        log_prob: same shape; log-probability of each sampled token among all tokens, 0 outside the
            mask.
        is_cut_off: `[prompts * samples]`; whether the response was truncated at the maximum length.
    """

    ids: Tensor
    mask: Tensor
    log_prob: Tensor
    is_cut_off: Tensor


@dataclass(frozen=True)
class Generation:
    """How tokens are sampled.

    Training samples from all tokens at the policy's temperature, because the probability ratio in
    its loss requires exact values of log_prob.

    Attributes:
        temperature: 0: always the most likely token; None: the policy's training temperature.
        top_k: sample only from the k most likely tokens, plus ties with the last of them;
            1: always the most likely token; None: all tokens.
        top_p: of these, sample only from the smallest set with at least this total probability;
            1: all.

    Raises:
        ValueError: A value is out of range.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature is not None and self.temperature < 0:
            raise ValueError(
                f"temperature ({self.temperature}) must be at least 0 (always the most likely "
                "token), or None (the policy's temperature)"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k ({self.top_k}) must be at least 1, or None for all tokens")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p ({self.top_p}) must be above 0 and at most 1 (all tokens)")


# greedy, standard and liberal follow agent-tunix. All passes with greedy are identical.
# sampled is the distribution used in training, so it shows the effect of an update most directly.
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
    """How many responses to sample, of which length, and how.

    Attributes:
        samples: responses per prompt.
        max_prompt_length, max_response_length: in tokens.
        generation: how tokens are sampled.
        generator: random generator on the model's device; None: torch's global generator.
    """

    samples: int
    max_prompt_length: int
    max_response_length: int
    generation: Generation = Generation()
    generator: torch.Generator | None = None


@torch.no_grad()
def sample(
    model: nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    request: Request,
    *,
    end_ids: Sequence[int],
    pad_id: int,
) -> Responses:
    """Sample responses. Each prompt is processed once, regardless of the number of responses.

    Args:
        model: a causal language model of transformers, possibly with adapters.
        prompt_ids: `[prompts, length]`, padded on the left.
        prompt_mask: same shape; True at the tokens of a prompt.
        request: its temperature must be set.
        end_ids: the tokens that end a response.
        pad_id: the padding token; may also end a response, since the masks do not depend on it.
    """
    samples, max_length = request.samples, request.max_response_length
    cache = _new_cache(model)
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
    ends = torch.tensor(end_ids, device=ids.device)
    # rows: the responses that are computed; is_open: which of these have not ended
    rows, is_open = torch.arange(responses, device=ids.device), is_cut_off
    for step in range(max_length):
        token, log_prob = draw(logits, request)
        token = torch.where(is_open, token, pad_id)
        ids[rows, step], mask[rows, step] = token, is_open
        log_probs[rows, step] = log_prob.masked_fill(~is_open, 0.0)
        attended = torch.cat([attended, is_open.unsqueeze(-1)], -1)
        is_open = is_open & ~torch.isin(token, ends)
        is_cut_off = is_cut_off.index_copy(0, rows, is_open)
        num_open = int(is_open.sum())
        if step == max_length - 1 or not num_open:
            break
        if 2 * num_open <= len(rows):  # stop computing the responses that have ended
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
    ids, mask, log_probs = (each[:, : step + 1].contiguous() for each in (ids, mask, log_probs))
    return Responses(ids, mask, log_probs, is_cut_off)


def response_log_probs(
    model: nn.Module,
    prompt_ids: Tensor,
    prompt_mask: Tensor,
    response_ids: Tensor,
    response_mask: Tensor,
    temperature: float,
) -> Tensor:
    """Return log-probabilities of response tokens, `[responses, length]`; 0 outside the mask.

    A prompt that several responses share is processed once.
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
        cache = _new_cache(model)
        first_logits = model(
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
        logits = torch.cat([first_logits[kind], rest], 1)
    return log_probs_of(response_ids, logits, temperature).masked_fill(~response_mask, 0.0)


def draw(logits: Tensor, request: Request) -> tuple[Tensor, Tensor]:
    """Sample tokens from logits `[rows, vocabulary]`.

    Returns:
        The tokens and their log-probabilities among all tokens, `[rows]` each.
    """
    generation = request.generation
    log_probs = _log_softmax(logits, generation.temperature)
    if generation.temperature == 0 or generation.top_k == 1:
        token = logits.argmax(-1)
    else:
        weights = log_probs
        # the warpers ignore their first argument, input_ids
        if generation.top_k is not None:
            weights = TopKLogitsWarper(generation.top_k)(logits, weights)
        if generation.top_p < 1:
            weights = TopPLogitsWarper(generation.top_p)(logits, weights)
        token = torch.multinomial(weights.exp(), 1, generator=request.generator).squeeze(-1)
    return token, _chosen(log_probs, token)


def log_probs_of(ids: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Return the log-probabilities of tokens `[...]`, given logits `[..., vocabulary]`."""
    return _chosen(_log_softmax(logits, temperature), ids)


def _chosen(log_probs: Tensor, ids: Tensor) -> Tensor:
    return log_probs.gather(-1, ids.unsqueeze(-1)).squeeze(-1)


def _new_cache(model: nn.Module) -> DynamicCache:
    config: Any = model.config
    return DynamicCache(config=config)


def _log_softmax(logits: Tensor, temperature: float | None) -> Tensor:
    # without a temperature, or with 0, report the probabilities at temperature 1
    return (logits.float() / (temperature or 1.0)).log_softmax(-1)


def _positions(mask: Tensor) -> Tensor:
    """Return the position of each token, not counting padding; padding gets a valid position."""
    return (mask.long().cumsum(-1) - 1).clamp(min=0)
