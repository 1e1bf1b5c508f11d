"""Supervised learning from demonstrations, which gives a tiny model something to improve."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from heteromark.config.models.llm import WarmUpConfig
from heteromark.llm.policies.backbone import Backbone
from heteromark.llm.tasks.base import Task

IGNORED = -100  # of no token: what cross entropy leaves out
RECENT = 20  # steps whose losses tell together how far learning is


class Demonstration(NamedTuple):
    """What a perfect agent responds to a prompt."""

    prompt: str
    response: str


def demonstrations(
    task: Task,
    turn_order: Sequence[str],
    templates: Mapping[str, str],
    seed: int,
    mistakes: float = 0.0,
) -> Iterator[Demonstration]:
    """What a perfect team says, problem after problem, for ever; of the training split only.

    Args:
        mistakes: how often those who act later are told what belongs to the problem before
            instead. Where they have only seen perfect colleagues, they repeat whatever they hear.
    """
    chance = random.Random(seed)
    before: dict[str, str] = {}  # what each role said on the problem before
    number = 0
    while True:
        problem = task.problem(seed + number)
        number += 1
        now: dict[str, str] = {}
        for role in turn_order:
            if problem.is_done:
                break
            said = Demonstration(problem.prompt(role, templates[role]), problem.demonstration(role))
            is_heard = role != turn_order[-1]
            is_wrong = is_heard and role in before and chance.random() < mistakes
            problem.act(role, before[role] if is_wrong else said.response)
            now[role] = said.response
            yield said
        before = now


def warm_up(
    backbone: Backbone,
    shown: Iterator[Demonstration],
    settings: WarmUpConfig,
    on_step: Callable[[int, float], None] | None = None,
) -> float:
    """Train all weights of a model on demonstrations.

    The learning rate rises over the first steps, without which learning takes much longer, and
    falls to zero at the last. Training stops when the mean loss of the last `RECENT` steps is no
    higher than the target: models learn a task suddenly, at steps that differ from seed to seed,
    and one that has learnt it altogether leaves reinforcement learning nothing to improve.

    Args:
        shown: as many as are asked for, `steps * batch_size`.
        on_step: called after each step with its number and its loss.

    Returns:
        the last step's loss: mean cross entropy per token of the responses, in nats.
    """
    model, tokenizer = backbone.model, backbone.tokenizer
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    order = random.Random(settings.seed)
    recent: deque[float] = deque(maxlen=RECENT)
    for step in range(settings.steps):
        share = min(1 - step / settings.steps, (step + 1) / (settings.ramp or 1))
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * share
        batch = [next(shown) for _ in range(settings.batch_size)]
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
        is_full = settings.target_loss is not None and len(recent) == RECENT
        if is_full and sum(recent) / RECENT <= settings.target_loss:
            break
    return recent[-1] if recent else math.nan


def _tensors(batch: Sequence[Demonstration], tokenizer) -> tuple[torch.Tensor, ...]:
    """Token ids, labels and mask, `[demonstrations, longest]`, padded on the right."""
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
