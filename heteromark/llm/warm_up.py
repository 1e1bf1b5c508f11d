"""Supervised warm-up: train a tiny model on demonstrations before reinforcement learning."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from heteromark.config.models.llm import WarmUpConfig
from heteromark.llm.policies.backbone import Backbone
from heteromark.llm.tasks.base import Task

IGNORED = -100  # label of tokens that cross entropy ignores
RECENT = 20  # number of steps whose mean loss is compared with the target


class Demonstration(NamedTuple):
    """A prompt and a perfect agent's response."""

    prompt: str
    response: str


def demonstrations(
    task: Task,
    turn_order: Sequence[str],
    templates: Mapping[str, str],
    seed: int,
    mistakes: float = 0.0,
) -> Iterator[Demonstration]:
    """Yield the responses of a perfect team to training problems, indefinitely.

    Args:
        task: draws the problems.
        turn_order: roles of a round.
        templates: prompt template of each role.
        seed: seed of the problems and mistakes.
        mistakes: probability of replacing the response that later roles see by the same role's
            response to the previous problem. Without mistakes, later roles learn to copy whatever
            they see.
    """
    chance = random.Random(seed)
    before: dict[str, str] = {}  # each role's response to the previous problem
    number = 0
    while True:
        problem = task.problem(seed + number)
        number += 1
        now: dict[str, str] = {}
        for role in turn_order:
            if problem.is_done:
                break
            shown = Demonstration(
                problem.prompt(role, templates[role]), problem.demonstration(role)
            )
            is_seen_later = role != turn_order[-1]
            is_wrong = is_seen_later and role in before and chance.random() < mistakes
            problem.act(role, before[role] if is_wrong else shown.response)
            now[role] = shown.response
            yield shown
        before = now


def warm_up(
    backbone: Backbone,
    examples: Iterator[Demonstration],
    settings: WarmUpConfig,
    on_step: Callable[[int, float], None] | None = None,
) -> float:
    """Train all weights of a model on demonstrations.

    The learning rate rises over the first steps, which speeds up learning considerably, and then
    falls to zero. Training stops early when the mean loss of the last `RECENT` steps reaches the
    target. Models learn a task suddenly, at a step that depends on the seed, and a fully trained
    model leaves nothing for reinforcement learning to improve.

    Args:
        backbone: the model to train.
        examples: must yield at least `steps * batch_size` demonstrations.
        settings: steps, batch size, learning rate and target loss.
        on_step: called after each step with its number and loss.

    Returns:
        The last step's loss: mean cross entropy per response token, in nats.
    """
    model, tokenizer = backbone.model, backbone.tokenizer
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    order = random.Random(settings.seed)
    recent: deque[float] = deque(maxlen=RECENT)
    for step in range(settings.steps):
        share = min(1 - step / settings.steps, (step + 1) / (settings.ramp or 1))
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * share
        batch = [next(examples) for _ in range(settings.batch_size)]
        order.shuffle(batch)
        ids, labels, mask = _tensors(batch, tokenizer)
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        loss = nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(loss.item())
        if on_step is not None:
            on_step(step, recent[-1])
        target = settings.target_loss
        if target is not None and len(recent) == RECENT and sum(recent) / RECENT <= target:
            break
    return recent[-1] if recent else math.nan


def _tensors(
    batch: Sequence[Demonstration], tokenizer: PreTrainedTokenizerBase
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return token ids, labels and mask, `[demonstrations, longest]` each, padded on the right."""
    prompts = tokenizer([each.prompt for each in batch]).input_ids
    responses = tokenizer([each.response for each in batch]).input_ids
    rows = [
        (prompt + response + [tokenizer.eos_token_id], len(prompt))
        for prompt, response in zip(prompts, responses, strict=True)
    ]
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    labels = torch.full_like(ids, IGNORED)
    mask = torch.zeros_like(ids)
    for row, (tokens, start) in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens)] = ids[row, start : len(tokens)]
        mask[row, : len(tokens)] = 1
    return ids, labels, mask
