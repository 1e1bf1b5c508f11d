"""The base class of all text policies."""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from heteromark.llm.sampling import Request, Responses


def text_policies(actors: Mapping[str, nn.Module]) -> dict[str, TextPolicy]:
    """Return the actors of a run with language-model agents as text policies.

    Raises:
        TypeError: An actor is not a text policy.
    """
    policies = {}
    for name, actor in actors.items():
        if not isinstance(actor, TextPolicy):
            raise TypeError(f"actor {name} must be a TextPolicy, not a {type(actor).__name__}")
        policies[name] = actor
    return policies


class TextPolicy(nn.Module, ABC):
    """A trainable policy that responds to text prompts.

    Args:
        model: the model to train.
        tokenizer: must pad on the left.
        temperature: sampling temperature, also used for log-probabilities.
        with_reference: keep a frozen copy of the model as the reference of the KL penalty.
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
        """The device of the model."""
        return next(self.model.parameters()).device

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Return the weights that belong to this policy alone, by name."""
        return dict(self.model.named_parameters())

    def state_dict(
        self,
        *,
        destination: Any = None,
        prefix: str = "",
        keep_vars: bool = False,
    ) -> Any:
        """Return `own_state` in the format of `torch.nn.Module.state_dict`."""
        state = {} if destination is None else destination
        for name, value in self.own_state().items():
            is_plain = keep_vars or not isinstance(value, nn.Parameter)
            state[prefix + name] = value if is_plain else value.detach()
        return state

    def own_state(self) -> dict[str, Tensor]:
        """Return the model's state. It excludes the reference, which is the untrained model."""
        return self.model.state_dict(keep_vars=True)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> None:
        """Load the result of `state_dict`; see `load_own_state`.

        Args:
            state_dict: the saved state.
            strict: must be True.
            assign: must be False.

        Raises:
            ValueError: `strict` is False or `assign` is True.
        """
        if not strict or assign:
            raise ValueError("text policies support only strict=True and assign=False")
        self.load_own_state(state_dict)

    def load_own_state(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `own_state`.

        Raises:
            RuntimeError: Weights are missing, unexpected, or have other shapes.
        """
        self.model.load_state_dict(state)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Activate this policy on its model, which other policies may share, within a block."""
        yield

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[nn.Module]:
        """Yield the model as it was before training."""
        if self.reference is None:
            raise ValueError(
                "this policy has no reference model: create it with with_reference=True"
            )
        yield self.reference

    def encode(self, prompts: Sequence[str], max_length: int) -> tuple[Tensor, Tensor]:
        """Return token ids and mask of prompts, `[prompts, longest]` each, padded on the left.

        Raises:
            ValueError: A prompt is longer than `max_length` tokens.
        """
        tokens = self.tokenizer(list(prompts), return_tensors="pt", padding=True)
        lengths = tokens.attention_mask.sum(-1)
        if (lengths > max_length).any():
            row = int(lengths.argmax())
            raise ValueError(
                f"a prompt has {int(lengths[row])} tokens, more than max_prompt_length "
                f"({max_length}): {prompts[row][:60]!r} …"
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
        decode: Callable[..., Any] = self.tokenizer.decode  # one string per call for flat lists
        texts: list[str] = [decode(row[:length], skip_special_tokens=True) for row, length in rows]
        return batch, texts

    def forward(self, batch: TensorDictBase) -> Tensor:
        """Compute log-probabilities of responses, with gradient.

        Returns:
            `[responses, length]`; 0 after the end of a response.
        """
        with self.active():
            return self._log_probs(self.model, batch)

    @torch.no_grad()
    def reference_log_probs(self, batch: TensorDictBase) -> Tensor:
        """Compute log-probabilities by the untrained model, without gradient; see `forward`."""
        with self.as_reference() as model:
            return self._log_probs(model, batch)

    @abstractmethod
    def _sample(self, prompt_ids: Tensor, prompt_mask: Tensor, request: Request) -> Responses:
        """Sample responses; see `sampling.sample` for the arguments."""

    @abstractmethod
    def _log_probs(self, model: nn.Module, batch: TensorDictBase) -> Tensor:
        """Compute log-probabilities by the model or its reference, `[responses, length]`."""
