"""Language models as policies: whole, or as low-rank adapters on one that others may share."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tensordict import TensorDictBase
from torch import Tensor, nn

from heteromark.llm.policies.backbone import Backbone
from heteromark.llm.policies.base import TextPolicy
from heteromark.llm.sampling import Request, Responses, response_log_probs, sample

BASE = "base_sha256"  # the entry of an adapter's state that identifies what it was trained on


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


class LanguageModelPolicy(TextPolicy):
    """A policy that is a causal language model.

    Args:
        backbone: the model, without adapters.
        temperature, with_reference: see `TextPolicy`.
    """

    def __init__(
        self, backbone: Backbone, temperature: float = 1.0, with_reference: bool = False
    ) -> None:
        super().__init__(backbone.model, backbone.tokenizer, temperature, with_reference)
        self.backbone = backbone

    def _computing(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.backbone.autocast)

    def _sample(self, prompt_ids: Tensor, prompt_mask: Tensor, request: Request) -> Responses:
        end, fill = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        with self._computing():
            return sample(self.model, prompt_ids, prompt_mask, request, end_id=end, pad_id=fill)

    def _log_probs(self, model: nn.Module, batch: TensorDictBase) -> Tensor:
        with self._computing():
            return response_log_probs(
                model,
                batch["prompt_ids"],
                batch["prompt_mask"],
                batch["action"],
                batch["response_mask"],
                self.temperature,
            )


class FrozenPolicy(LanguageModelPolicy):
    """A policy on a model whose own weights stay as they are, so that others may be on it too.

    By itself it has nothing to train. Its state holds what is trained of it, and identifies the
    model that this belongs to.
    """

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        return {}

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[nn.Module]:
        yield self.model

    def own_state(self) -> dict[str, Tensor]:
        """The trained weights, and as "base_sha256" the `Backbone.fingerprint` they belong to."""
        # Not by peft, which leaves out adapters that are called what modules are called.
        return {**self.trained_parameters(), BASE: self.backbone.fingerprint}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            ValueError: it belongs to another base or adapter.
            RuntimeError: weights are of other shapes.
        """
        saved = dict(state_dict)
        base, own = saved.pop(BASE, None), self.backbone.fingerprint
        if base is None or not torch.equal(base.cpu(), own):
            raise ValueError(
                f"the state belongs to another base: its {BASE} is {_told(base)}, and that of "
                f"this model and tokenizer is {_told(own)}; load the model that it was trained on"
            )
        if strange := saved.keys() ^ self.trained_parameters().keys():
            raise ValueError(
                f"the state belongs to another policy: {min(strange)} is in one of them only"
            )
        self.model.load_state_dict(saved, strict=False)  # the base's weights are not in it


class AdapterPolicy(FrozenPolicy):
    """A policy whose weights are one adapter of a model.

    Args:
        backbone: the model with its adapters.
        name: the adapter's.
        temperature: see `TextPolicy`.
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
    shared = replace(backbone, model=model)
    return {name: AdapterPolicy(shared, name, temperature) for name in names}


def _told(fingerprint: Tensor | None) -> str:
    return "missing" if fingerprint is None else bytes(fingerprint.tolist()).hex()[:12]
