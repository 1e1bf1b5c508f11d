"""A policy over text that is no language model, for teams of both kinds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad

from heteromark.llm.policies.backbone import character_tokenizer
from heteromark.llm.policies.base import TextPolicy
from heteromark.llm.sampling import Request, Responses, draw, log_probs_of
from heteromark.modules.networks import make_mlp

HEAD_GAIN = 0.01  # so that all characters are about equally likely to begin with


class NetworkPolicy(TextPolicy):
    """A feed-forward network that reads characters and says all of a response at once.

    Each token of a response depends on the prompt alone, not on the tokens before it.

    The network, made on the CPU, reads the prompt's last characters one-hot, `[rows,
    max_prompt_length * vocabulary]`, those of a shorter prompt at the right and zeros before them,
    and gives logits `[rows, max_response_length * vocabulary]`.

    Args:
        hidden_sizes: see `make_mlp`.
        max_prompt_length: characters that it sees.
        max_response_length: tokens that it can say.
        temperature, with_reference: see `TextPolicy`.
        seed: of the weights; torch's global generator is left as it was.
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
        widths = (length * len(tokenizer) for length in (max_prompt_length, max_response_length))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = make_mlp(*widths, hidden_sizes, "tanh", head_gain=HEAD_GAIN)
        super().__init__(network, tokenizer, temperature, with_reference)
        self.max_prompt_length = max_prompt_length

    @torch.no_grad()
    def _sample(self, prompt_ids: Tensor, prompt_mask: Tensor, request: Request) -> Responses:
        """No response is longer than the network's `max_response_length` either."""
        logits = self._logits(self.model, prompt_ids, prompt_mask)[:, : request.max_response_length]
        logits = logits.repeat_interleave(request.samples, 0)
        ids, log_prob = (
            found.view(logits.shape[:2]) for found in draw(logits.flatten(0, 1), request)
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
                f"a response has {int(mask.sum(-1).max())} tokens, and the network says {length} "
                "at most (max_response_length): it is not one of its own"
            )
        log_prob = log_probs_of(ids[:, :length], logits[:, : ids.shape[1]], self.temperature)
        return pad(log_prob, (0, max(beyond, 0))).masked_fill(~mask, 0.0)

    def _logits(self, model: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor:
        """Of every token of a response, `[rows, max_response_length, vocabulary]`."""
        width, vocabulary = self.max_prompt_length, len(self.tokenizer)
        seen = one_hot(prompt_ids[:, -width:], vocabulary) * prompt_mask[:, -width:].unsqueeze(-1)
        seen = pad(seen, (0, 0, width - seen.shape[1], 0)).flatten(1)
        dtype = next(model.parameters()).dtype
        return model(seen.to(dtype)).unflatten(-1, (-1, vocabulary))
