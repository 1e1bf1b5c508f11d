"""What all policies over text have in common, whatever model they are made of."""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from heteromark.llm.sampling import Request, Responses


class TextPolicy(nn.Module, ABC):
    """What responds to prompts, and is trained as one.

    Args:
        model: its weights are trained.
        tokenizer: pads on the left.
        temperature: that responses are sampled at, and that log-probabilities are of.
        with_reference: keep a copy of the model as it is now, with frozen weights, so that the
            policy can be kept near what it was.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        temperature: float = 1.0,
        with_reference: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.temperature = temperature
        self.reference: nn.Module | None = None
        if with_reference:
            self.reference = copy.deepcopy(model).requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where prompts are read and responses are made."""
        return next(self.model.parameters()).device

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The weights that belong to this policy alone, by name."""
        return dict(self.model.named_parameters())

    def state_dict(
        self,
        *,
        destination: dict[str, Any] | None = None,
        prefix: str = "",
        keep_vars: bool = False,
    ) -> dict[str, Any]:
        """What `own_state` says, as torch asks for it."""
        state = {} if destination is None else destination
        for name, value in self.own_state().items():
            is_plain = keep_vars or not isinstance(value, nn.Parameter)
            state[prefix + name] = value if is_plain else value.detach()
        return state

    def own_state(self) -> dict[str, Tensor]:
        """The model's; the reference is not part of it, since it is what the model starts from."""
        return self.model.state_dict(keep_vars=True)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            RuntimeError: weights are missing, superfluous or of other shapes.
        """
        self.model.load_state_dict(state_dict)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Within it, the model computes what this policy says."""
        yield

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[nn.Module]:
        """The model as it was before any training."""
        if self.reference is None:
            raise ValueError("this policy was made without a reference")
        yield self.reference

    def encode(self, prompts: Sequence[str], max_length: int) -> tuple[Tensor, Tensor]:
        """Token ids and mask of prompts, `[prompts, longest]` each, padded on the left.

        Raises:
            ValueError: a prompt is longer than `max_length` tokens.
        """
        tokens = self.tokenizer(list(prompts), return_tensors="pt", padding=True)
        lengths = tokens.attention_mask.sum(-1)
        if (lengths > max_length).any():
            row = int(lengths.argmax())
            raise ValueError(
                f"a prompt has {int(lengths[row])} tokens, and {max_length} are allowed "
                f"(max_prompt_length): {prompts[row][:60]!r} …"
            )
        return tokens.input_ids.to(self.device), tokens.attention_mask.bool().to(self.device)

    def respond(self, prompts: Sequence[str], request: Request) -> tuple[TensorDict, list[str]]:
        """Sample responses to each prompt.

        Returns:
            A TensorDict `[prompts * samples]` with prompt_ids, prompt_mask, action, response_mask,
            log_prob and is_cut_off, and the responses as text.
        """
        ids, mask = self.encode(prompts, request.max_prompt_length)
        if request.generation.temperature is None:
            generation = replace(request.generation, temperature=self.temperature)
            request = replace(request, generation=generation)
        with self.active():
            found = self._sample(ids, mask, request)
        batch = TensorDict(
            {
                "prompt_ids": ids.repeat_interleave(request.samples, 0),
                "prompt_mask": mask.repeat_interleave(request.samples, 0),
                "action": found.ids,
                "response_mask": found.mask,
                "log_prob": found.log_prob,
                "is_cut_off": found.is_cut_off,
            },
            [len(found.ids)],
        )
        rows = zip(found.ids.tolist(), found.mask.sum(-1).tolist(), strict=True)
        texts = [
            self.tokenizer.decode(row[:length], skip_special_tokens=True) for row, length in rows
        ]
        return batch, texts

    def forward(self, batch: TensorDictBase) -> Tensor:
        """Log-probabilities of responses, `[responses, length]`, with gradient; 0 beyond them."""
        with self.active():
            return self._log_probs(self.model, batch)

    @torch.no_grad()
    def reference_log_probs(self, batch: TensorDictBase) -> Tensor:
        """The same of the model as it was before training, without gradient."""
        with self.as_reference() as model:
            return self._log_probs(model, batch)

    @abstractmethod
    def _sample(self, prompt_ids: Tensor, prompt_mask: Tensor, request: Request) -> Responses:
        """Sample responses; the arguments are those of `sampling.sample`."""

    @abstractmethod
    def _log_probs(self, model: nn.Module, batch: TensorDictBase) -> Tensor:
        """Of responses by the policy's model or its reference, `[responses, length]`."""
