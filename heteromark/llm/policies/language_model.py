"""Language models as policies: full models, or low-rank adapters on a shared model."""

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
from heteromark.llm.policies.chat import PromptFormat
from heteromark.llm.sampling import Request, Responses, response_log_probs, sample

BASE = "base_sha256"  # key of an adapter's state that identifies its base model


@dataclass(frozen=True)
class Lora:
    """Settings of low-rank adapters.

    Attributes:
        rank: rank of the update to each weight matrix.
        alpha: the update is scaled by `alpha / rank`.
        modules: regular expression that must match the full name of a module; None: all linear
            modules except the head.
    """

    rank: int = 32
    alpha: float = 32.0
    modules: str | None = None


class LanguageModelPolicy(TextPolicy):
    """A policy that trains all weights of a causal language model.

    Args:
        backbone: the model, without adapters.
        temperature, with_reference: see `TextPolicy`.
    """

    def __init__(
        self, backbone: Backbone, temperature: float = 1.0, with_reference: bool = False
    ) -> None:
        prompts = backbone.prompts or PromptFormat(backbone.tokenizer)
        super().__init__(backbone.model, prompts, temperature, with_reference)
        self.backbone = backbone

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.backbone.autocast)

    def _sample(self, prompt_ids: Tensor, prompt_mask: Tensor, request: Request) -> Responses:
        with self._autocast():
            return sample(
                self.model,
                prompt_ids,
                prompt_mask,
                request,
                end_ids=self.prompts.end_ids,
                pad_id=self.tokenizer.pad_token_id,
            )

    def _log_probs(self, model: nn.Module, batch: TensorDictBase) -> Tensor:
        with self._autocast():
            return response_log_probs(
                model,
                batch["prompt_ids"],
                batch["prompt_mask"],
                batch["action"],
                batch["response_mask"],
                self.temperature,
            )


class FrozenPolicy(LanguageModelPolicy):
    """A policy on a model with frozen weights, which several policies can share.

    It has no trained weights unless a subclass adds some. Its state holds the trained weights and
    the fingerprint of the base model.
    """

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        return {}

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[nn.Module]:
        yield self.model

    def own_state(self) -> dict[str, Tensor]:
        """Return the trained weights, and `Backbone.fingerprint` as "base_sha256"."""
        # peft's function is not used: it drops adapters whose name is also a module's name
        return {**self.trained_parameters(), BASE: self.backbone.fingerprint}

    def load_own_state(self, state: Mapping[str, Tensor]) -> None:
        """Load the result of `own_state`.

        Raises:
            ValueError: It belongs to another base model or adapter.
            RuntimeError: Weights have other shapes.
        """
        saved = dict(state)
        base, own = saved.pop(BASE, None), self.backbone.fingerprint
        if base is None or not torch.equal(base.cpu(), own):
            raise ValueError(
                f"the saved weights belong to another base model: their {BASE} is {_hex(base)}, "
                f"but this model and tokenizer have {_hex(own)}. Load the base model that they "
                "were trained on"
            )
        trained = self.trained_parameters().keys()
        if missing := trained - saved.keys():
            raise ValueError(
                f"the saved weights belong to another policy: they lack {min(missing)}"
            )
        if unexpected := saved.keys() - trained:
            raise ValueError(
                f"the saved weights belong to another policy: {min(unexpected)} is not a weight "
                "of this policy"
            )
        self.model.load_state_dict(saved, strict=False)  # the base model's weights are not saved


class AdapterPolicy(FrozenPolicy):
    """A policy that trains one adapter of a model.

    Args:
        backbone: the model with its adapters.
        name: name of the adapter.
        temperature: see `TextPolicy`.
    """

    model: PeftModel

    def __init__(self, backbone: Backbone, name: str, temperature: float = 1.0) -> None:
        super().__init__(backbone, temperature)
        self.name = name

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        # Match the name after peft's lora_ part: a module may have the same name as the adapter.
        own = re.compile(rf"\.lora_\w+\.{re.escape(self.name)}(\.|$)")
        return {name: weight for name, weight in self.model.named_parameters() if own.search(name)}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        # set_adapter freezes the other adapters, so gradients flow into this one only.
        adapters: Any = self.model.base_model
        adapters.set_adapter(self.name)
        yield

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[nn.Module]:
        with self.model.disable_adapter():
            yield self.model


def adapter_policies(
    backbone: Backbone, names: Sequence[str], lora: Lora, temperature: float = 1.0, seed: int = 0
) -> Mapping[str, AdapterPolicy]:
    """Create policies that share one model, each with its own adapter.

    The new adapters have no effect: all policies initially respond as the model does.

    Raises:
        ValueError: No module of the model matches `lora.modules`.
    """
    settings: dict[str, Any] = {
        "r": lora.rank,
        "lora_alpha": lora.alpha,  # annotated as an integer, but any number works
        "target_modules": lora.modules or "all-linear",
        "task_type": "CAUSAL_LM",
    }
    config = LoraConfig(**settings)
    base: Any = backbone.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first, *others = names
        model = get_peft_model(base, config, adapter_name=first)
        for name in others:
            model.add_adapter(name, copy.deepcopy(config))
    model.eval()  # peft returns the model in training mode
    shared = replace(backbone, model=model)
    return {name: AdapterPolicy(shared, name, temperature) for name in names}


def _hex(fingerprint: Tensor | None) -> str:
    return "missing" if fingerprint is None else bytes(fingerprint.tolist()).hex()[:12]
