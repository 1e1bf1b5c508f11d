"""Policies with scripted responses, in the format of language models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDict

from heteromark.llm.policies.backbone import character_tokenizer
from heteromark.llm.policies.base import Replies
from heteromark.llm.sampling import Generation, Request


def make_request(
    *,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float = 1.0,
    **settings: Any,
) -> Request:
    """Create a request; the fields of its `Generation` are separate arguments."""
    return Request(generation=Generation(temperature, top_k, top_p), **settings)


class Scripted:
    """Responds with the result of a function of the prompt and a random number in [0, 1).

    The number comes from the generator that a language model would use for sampling.
    """

    tokenizer = character_tokenizer()

    def __init__(self, say: Callable[[str, float], str]) -> None:
        self.say = say
        self.rows: list[int] = []  # number of responses of each call

    def respond(self, prompts: Sequence[str], request: Request, system: str = "") -> Replies:
        repeated = [prompt for prompt in prompts for _ in range(request.samples)]
        self.rows.append(len(repeated))
        drawn = torch.rand(len(repeated), generator=request.generator).tolist()
        rows = [
            self.tokenizer(self.say(*each)).input_ids for each in zip(repeated, drawn, strict=True)
        ]
        rows = [[*row, self.tokenizer.eos_token_id][: request.max_response_length] for row in rows]
        width = max(map(len, rows))
        ids = torch.full((len(rows), width), self.tokenizer.pad_token_id)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = True
        ended = (ids == self.tokenizer.eos_token_id).any(-1)
        batch = TensorDict(
            {"action": ids, "response_mask": mask, "is_cut_off": ~ended}, [len(rows)]
        )
        texts = [self.tokenizer.decode(row, skip_special_tokens=True) for row in rows]
        return Replies(batch, texts, list(prompts), texts)
