"""Policies over text: whole models, or low-rank adapters on a model that others may share."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tensordict import TensorDict, TensorDictBase
from torch import Tensor, nn

from heteromark.llm.backbone import Backbone
from heteromark.llm.sampling import response_log_probs, sample


@dataclass(frozen=True)
class Lora:
    """The shape of low-rank adapters.

    Attributes:
        rank: of the update to each weight matrix.
        alpha: the update is scaled by `alpha / rank`.
        modules: regular expression that names of modules match as a whole; None: all linear ones
            but the head.
    """

    rank: int = 32
    alpha: float = 32.0
    modules: str | None = None


class TextPolicy(nn.Module):
    """What responds to prompts, and is trained as one.

    Args:
        backbone: the model, without adapters.
        temperature: that responses are sampled at, and that log-probabilities are of.
        reference: a model with frozen weights, where the policy is a whole model that is kept near
            what it was.
    """

    def __init__(
        self, backbone: Backbone, temperature: float = 1.0, reference: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.model = backbone.model
        self.tokenizer = backbone.tokenizer
        self.max_length = backbone.max_length
        self.temperature = temperature
        self.reference = reference

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The weights that belong to this policy alone, by name."""
        return dict(self.model.named_parameters())

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
        device = self.model.device
        return tokens.input_ids.to(device), tokens.attention_mask.bool().to(device)

    def respond(
        self,
        prompts: Sequence[str],
        *,
        samples: int,
        max_prompt_length: int,
        max_response_length: int,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[TensorDict, list[str]]:
        """Sample responses to each prompt.

        Args:
            temperature: None: the policy's own.
            top_k, top_p: of the tokens to sample among, see `sample`; not for training.

        Returns:
            A TensorDict `[prompts * samples]` with prompt_ids, prompt_mask, action, response_mask,
            log_prob and is_cut_off, and the responses as text.
        """
        ids, mask = self.encode(prompts, max_prompt_length)
        with self.active():
            found = sample(
                self.model,
                ids,
                mask,
                samples=samples,
                max_length=max_response_length,
                temperature=self.temperature if temperature is None else temperature,
                end_id=self.tokenizer.eos_token_id,
                pad_id=self.tokenizer.pad_token_id,
                top_k=top_k,
                top_p=top_p,
                generator=generator,
            )
        batch = TensorDict(
            {
                "prompt_ids": ids.repeat_interleave(samples, 0),
                "prompt_mask": mask.repeat_interleave(samples, 0),
                "action": found.ids,
                "response_mask": found.mask,
                "log_prob": found.log_prob,
                "is_cut_off": found.is_cut_off,
            },
            [len(prompts) * samples],
        )
        rows = zip(found.ids.tolist(), found.mask.sum(-1).tolist(), strict=True)
        texts = [
            self.tokenizer.decode(row[:length], skip_special_tokens=True) for row, length in rows
        ]
        return batch, texts

    def forward(self, batch: TensorDictBase) -> Tensor:
        """Log-probabilities of responses, `[responses, length]`, with gradient."""
        with self.active():
            return self._log_probs(self.model, batch)

    @torch.no_grad()
    def reference_log_probs(self, batch: TensorDictBase) -> Tensor:
        """The same of the model as it was before training, without gradient."""
        with self.as_reference() as model:
            return self._log_probs(model, batch)

    def _log_probs(self, model: nn.Module, batch: TensorDictBase) -> Tensor:
        return response_log_probs(
            model,
            batch["prompt_ids"],
            batch["prompt_mask"],
            batch["action"],
            batch["response_mask"],
            self.temperature,
        )


class AdapterPolicy(TextPolicy):
    """A policy whose weights are one adapter of a model.

    Args:
        name: the adapter's.
    """

    model: PeftModel

    def __init__(self, backbone: Backbone, name: str, temperature: float = 1.0) -> None:
        super().__init__(backbone, temperature)
        self.name = name

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        # After peft's own part of the name: modules may be called what the adapter is called.
        own = re.compile(rf"\.lora_\w+\.{re.escape(self.name)}(\.|$)")
        return {name: weight for name, weight in self.model.named_parameters() if own.search(name)}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        # This freezes the others: gradients of what is computed here reach this adapter alone.
        self.model.base_model.set_adapter(self.name)
        yield

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[nn.Module]:
        with self.model.disable_adapter():
            yield self.model


class FrozenPolicy(TextPolicy):
    """A model that is never trained; it may be the model of others too."""

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        return {}

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[nn.Module]:
        yield self.model


def full_policy(
    backbone: Backbone, temperature: float = 1.0, with_reference: bool = False
) -> TextPolicy:
    """A policy that is the whole model."""
    reference = None
    if with_reference:
        reference = copy.deepcopy(backbone.model).requires_grad_(False)
    return TextPolicy(backbone, temperature, reference)


def adapter_policies(
    backbone: Backbone, names: Sequence[str], lora: Lora, temperature: float = 1.0, seed: int = 0
) -> Mapping[str, AdapterPolicy]:
    """Policies that share one model, each with an adapter of its own; all say what the model says.

    Raises:
        ValueError: no module of the model matches `lora.modules`.
    """
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=lora.modules or "all-linear",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, *others = names
        model = get_peft_model(backbone.model, config, adapter_name=first)
        for name in others:
            model.add_adapter(name, copy.deepcopy(config))
    model.eval()  # peft hands it back in training mode
    shared = Backbone(model, backbone.tokenizer, backbone.max_length)
    return {name: AdapterPolicy(shared, name, temperature) for name in names}
