"""A policy over text that is no language model, for teams of both kinds."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad

from heteromark.llm.policies.backbone import character_tokenizer
from heteromark.llm.policies.base import TextPolicy
from heteromark.llm.sampling import Responses, draw, log_probs_of
from heteromark.modules.networks import make_mlp

HEAD_GAIN = 0.01  # so that all characters are about equally likely to begin with


class NetworkPolicy(TextPolicy):
    """A feed-forward network that reads characters and says all of a response at once.

    Each token of a response depends on the prompt alone, not on the tokens before it.

    Args:
        network: reads the prompt's last characters one-hot, `[rows, max_prompt_length *
            vocabulary]`, those of a shorter prompt at the right and zeros before them, and gives
            logits `[rows, max_response_length * vocabulary]`; see `network_sizes`.
        max_prompt_length: characters that it sees.
        max_response_length: tokens that it can say.
        temperature: see `TextPolicy`.
        with_reference: keep a copy as it is now.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        max_prompt_length: int,
        max_response_length: int,
        temperature: float = 1.0,
        with_reference: bool = False,
    ) -> None:
        reference = copy.deepcopy(network).requires_grad_(False) if with_reference else None
        super().__init__(network, character_tokenizer(), temperature, reference)
        self.max_prompt_length = max_prompt_length
        self.max_response_length = max_response_length

    @torch.no_grad()
    def _sample(
        self,
        prompt_ids: Tensor,
        prompt_mask: Tensor,
        *,
        samples: int,
        max_length: int,
        temperature: float,
        top_k: int | None,
        top_p: float,
        generator: torch.Generator | None,
    ) -> Responses:
        """No response is longer than the network's `max_response_length` either."""
        logits = self._logits(self.model, prompt_ids, prompt_mask)[:, :max_length]
        logits = logits.repeat_interleave(samples, 0)
        ids, log_prob = (
            found.view(logits.shape[:2])
            for found in draw(logits.flatten(0, 1), temperature, top_k, top_p, generator)
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


def network_sizes(max_prompt_length: int, max_response_length: int) -> tuple[int, int]:
    """Widths of the input and the output of a `NetworkPolicy`'s network."""
    vocabulary = len(character_tokenizer())
    return max_prompt_length * vocabulary, max_response_length * vocabulary


def network_policy(
    hidden_sizes: Sequence[int],
    activation: str,
    *,
    max_prompt_length: int,
    max_response_length: int,
    temperature: float = 1.0,
    with_reference: bool = False,
    seed: int = 0,
) -> NetworkPolicy:
    """A perceptron over characters, on the CPU; torch's global generator is left as it was.

    Args:
        hidden_sizes, activation: see `make_mlp`.
        max_prompt_length, max_response_length, temperature, with_reference: see `NetworkPolicy`.
        seed: of the weights.
    """
    sizes = network_sizes(max_prompt_length, max_response_length)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make_mlp(*sizes, hidden_sizes, activation, head_gain=HEAD_GAIN)
    return NetworkPolicy(
        network,
        max_prompt_length=max_prompt_length,
        max_response_length=max_response_length,
        temperature=temperature,
        with_reference=with_reference,
    )
