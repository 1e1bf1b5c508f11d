"""The base class of all text policies."""

from __future__ import annotations

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from heteromark.llm.policies.chat import PromptFormat
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


class Replies(NamedTuple):
    """The responses to prompts, `samples` per prompt; those to one prompt are adjacent.

    Attributes:
        batch: `[prompts * samples]`, with at least action, response_mask and is_cut_off.
        texts: `[prompts * samples]`, what the task reads.
        prompts: `[prompts]`, as they were sent.
        spoken: `[prompts * samples]`, the whole responses, with thoughts.
    """

    batch: TensorDict
    texts: list[str]
    prompts: list[str]
    spoken: list[str]


class TextPolicy(nn.Module, ABC):
    """A trainable policy that responds to text prompts.

    Args:
        model: the model to train.
        prompts: turns prompts into tokens; its tokenizer must pad on the left.
        temperature: sampling temperature, also used for log-probabilities.
        with_reference: keep a frozen copy of the model as the reference of the KL penalty.
    """

    def __init__(
        self,
        model: nn.Module,
        prompts: PromptFormat,
        temperature: float = 1.0,
        with_reference: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.prompts = prompts
        self.tokenizer = prompts.tokenizer
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

    def encode(
        self, prompts: Sequence[str], max_length: int, system: str = ""
    ) -> tuple[Tensor, Tensor]:
        """Return token ids and mask of prompts, `[prompts, longest]` each, padded on the left.

        Raises:
            ValueError: A prompt is longer than `max_length` tokens.
        """
        return self._padded([self.prompts.pieces(each, system) for each in prompts], max_length)

    def _padded(self, prompts: Sequence[Sequence[str]], max_length: int) -> tuple[Tensor, Tensor]:
        rows = self.prompts.encode(prompts)
        longest = max(map(len, rows))
        if longest > max_length:
            text = "".join(prompts[[len(row) for row in rows].index(longest)])
            raise ValueError(
                f"a prompt has {longest} tokens, more than max_prompt_length ({max_length}): "
                f"{text[:60]!r} …"
            )
        tokens = self.tokenizer.pad({"input_ids": rows}, return_tensors="pt")
        return tokens.input_ids.to(self.device), tokens.attention_mask.bool().to(self.device)

    def respond(self, prompts: Sequence[str], request: Request, system: str = "") -> Replies:
        """Sample responses to each prompt.

        Args:
            prompts: the texts of the prompts.
            request: how many responses, and how.
            system: the system prompt; empty: none.

        Returns:
            The replies. Their batch has prompt_ids, prompt_mask, action, response_mask, log_prob
            and is_cut_off.
        """
        sent = [self.prompts.pieces(each, system) for each in prompts]
        ids, mask = self._padded(sent, request.max_prompt_length)
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
        lengths = found.mask.sum(-1).tolist()
        rows = [row[:n] for row, n in zip(found.ids.tolist(), lengths, strict=True)]
        read = [self.prompts.read(row) for row in rows]
        return Replies(
            batch,
            texts=[answer for _, answer in read],
            prompts=["".join(pieces) for pieces in sent],
            spoken=[whole for whole, _ in read],
        )

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
