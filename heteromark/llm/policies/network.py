"""A text policy that is a feed-forward network, for heterogeneous teams."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad

from heteromark.llm.policies.backbone import character_tokenizer
from heteromark.llm.policies.base import TextPolicy
from heteromark.llm.policies.chat import PromptFormat
from heteromark.llm.sampling import Request, Responses, draw, log_probs_of
from heteromark.modules.networks import Layers, make_mlp

HEAD_GAIN = 0.01  # small, so that all characters are initially about equally likely


class NetworkPolicy(TextPolicy):
    """A feed-forward network that reads characters and outputs all tokens of a response at once.

    Each token of a response depends only on the prompt, not on earlier tokens.

    The input is the one-hot encoding of the prompt's last characters, `[rows, max_prompt_length *
    vocabulary]`; shorter prompts are padded with zeros on the left. The output is logits, `[rows,
    max_response_length * vocabulary]`. The network is created on the CPU.

    Args:
        hidden_sizes: see `Layers`.
        max_prompt_length: number of characters of the input.
        max_response_length: number of tokens of the output.
        temperature, with_reference: see `TextPolicy`.
        seed: seed of the weights; torch's global generator does not change.
    """

    def __init__(
        self,
        hidden_sizes: Sequence[int],
        *,
        max_prompt_length: int,
        max_response_length: int,
        temperature: float = 1.0,
        with_reference: bool = False,
        seed: int = 0,
    ) -> None:
        tokenizer = character_tokenizer()
        inputs, outputs = max_prompt_length * len(tokenizer), max_response_length * len(tokenizer)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = make_mlp(Layers(inputs, outputs, hidden_sizes, head_gain=HEAD_GAIN))
        super().__init__(network, PromptFormat(tokenizer), temperature, with_reference)
        self.max_prompt_length = max_prompt_length

    @torch.no_grad()
    def _sample(self, prompt_ids: Tensor, prompt_mask: Tensor, request: Request) -> Responses:
        """Sample responses, which are also limited to the network's `max_response_length`."""
        logits = self._logits(self.model, prompt_ids, prompt_mask)[:, : request.max_response_length]
        logits = logits.repeat_interleave(request.samples, 0)
        ids, log_prob = (
            drawn.view(logits.shape[:2]) for drawn in draw(logits.flatten(0, 1), request)
        )
        is_end = ids == self.tokenizer.eos_token_id
        mask = is_end.cumsum(-1) - is_end.long() == 0
        length = int(mask.sum(-1).max())
        return Responses(
            ids.masked_fill(~mask, self.tokenizer.pad_token_id)[:, :length],
            mask[:, :length],
            log_prob.masked_fill(~mask, 0.0)[:, :length],
            is_cut_off=~is_end.any(-1),
        )

    def _log_probs(self, model: nn.Module, batch: TensorDictBase) -> Tensor:
        ids, mask = batch["action"], batch["response_mask"]
        logits = self._logits(model, batch["prompt_ids"], batch["prompt_mask"])
        length, beyond = logits.shape[1], ids.shape[1] - logits.shape[1]
        if beyond > 0 and mask[:, length:].any():
            raise ValueError(
                f"a response has {int(mask.sum(-1).max())} tokens, more than this network's "
                f"max_response_length ({length}): it was not sampled by this network"
            )
        log_prob = log_probs_of(ids[:, :length], logits[:, : ids.shape[1]], self.temperature)
        return pad(log_prob, (0, max(beyond, 0))).masked_fill(~mask, 0.0)

    def _logits(self, model: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor:
        """Return logits of every response token, `[rows, max_response_length, vocabulary]`."""
        width, vocabulary = self.max_prompt_length, len(self.tokenizer)
        seen = one_hot(prompt_ids[:, -width:], vocabulary) * prompt_mask[:, -width:].unsqueeze(-1)
        seen = pad(seen, (0, 0, width - seen.shape[1], 0)).flatten(1)
        dtype = next(model.parameters()).dtype
        return model(seen.to(dtype)).unflatten(-1, (-1, vocabulary))
