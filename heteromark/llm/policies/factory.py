"""Create the policies of language-model agents from a run's config."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from heteromark.config.models.llm import TINY, PolicyModelConfig
from heteromark.config.models.run import RunConfig
from heteromark.config.rules.model_paths import GGUF, model_location
from heteromark.llm.policies.backbone import Backbone, BackboneError, load_backbone, tiny_backbone
from heteromark.llm.policies.base import TextPolicy
from heteromark.llm.policies.gguf import convert_gguf
from heteromark.llm.policies.language_model import (
    FrozenPolicy,
    LanguageModelPolicy,
    Lora,
    adapter_policies,
)
from heteromark.llm.policies.network import NetworkPolicy
from heteromark.llm.policies.prompt import PromptPolicy
from heteromark.llm.tasks.base import Task
from heteromark.llm.warm_up import demonstrations, warm_up
from heteromark.runs.code import own_fingerprint, version_of
from heteromark.runs.digest import task_identity, text_versions, versions
from heteromark.runs.files import sha256_of
from heteromark.seeds import stream_seed

MLP = "mlp"
logger = logging.getLogger("heteromark")


class SharedModels(Protocol):
    """Keeps models that several runs start from, such as `runs.store.RunStore`."""

    def shared_file(self, name: str, write: Callable[[Path], None]) -> Path: ...

    def shared_folder(self, name: str, write: Callable[[Path], None]) -> Path: ...


class TextPolicyFactory:
    """Creates the policies of one run.

    Args:
        config: config of the run.
        task: the agents' task; its demonstrations warm up tiny models.
        turn_order: roles of a round.
        templates: prompt templates by role.
        device: device of the models.
        store: keeps models that several runs start from.
    """

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        turn_order: Sequence[str],
        templates: Mapping[str, str],
        device: torch.device,
        store: SharedModels,
    ) -> None:
        self.config = config
        self.task = task
        self.turn_order = turn_order
        self.templates = templates
        self.device = device
        self.store = store

    def create(self) -> dict[str, TextPolicy]:
        """Create the policies, by name. Policies with adapters on the same model share it.

        Raises:
            ValueError: A model cannot be loaded, or its context is shorter than prompt plus
                response.
        """
        model = self.config.model
        names = dict.fromkeys(map(self.config.policy_of, self.turn_order))
        settings = {name: model.by_policy.get(name, PolicyModelConfig()) for name in names}
        policies: dict[str, TextPolicy] = {}
        by_model: dict[tuple[str, str], list[str]] = {}
        for name, policy in settings.items():
            if policy.kind == MLP:
                policies[name] = self._network(name, policy)
                continue
            path = policy.path or model.path
            specialization = policy.specialization or model.specialization
            by_model.setdefault((path, specialization), []).append(name)
        for (path, method), sharing in by_model.items():
            policies |= self._specialized(self._backbone(path), method, sharing)
        return {name: policies[name] for name in names}

    def _specialized(
        self, backbone: Backbone, specialization: str, names: Sequence[str]
    ) -> Mapping[str, TextPolicy]:
        model, temperature = self.config.model, self.config.generation.temperature
        if specialization == "lora":
            lora = Lora(model.lora_rank, model.lora_alpha, model.lora_modules)
            return adapter_policies(backbone, names, lora, temperature, self.config.seed)
        if specialization == "none":
            return {name: FrozenPolicy(backbone, temperature) for name in names}
        if specialization == "prompt":
            return {name: self._prompt_policy(backbone, name) for name in names}
        needs_reference = self.config.grpo.beta > 0
        copies = [replace(backbone, model=deepcopy(backbone.model)) for _ in names[1:]]
        return {
            name: LanguageModelPolicy(each, temperature, needs_reference)
            for name, each in zip(names, (backbone, *copies), strict=True)
        }

    def _network(self, name: str, policy: PolicyModelConfig) -> TextPolicy:
        config = self.config
        network = NetworkPolicy(
            policy.hidden_sizes,
            max_prompt_length=config.generation.max_prompt_length,
            max_response_length=config.generation.max_response_length,
            temperature=config.generation.temperature,
            with_reference=config.grpo.beta > 0,
            seed=stream_seed(config.seed, "network", name),
        )
        return network.to(self.device)

    def _prompt_policy(self, backbone: Backbone, name: str) -> PromptPolicy:
        """Create a policy that selects among the config's wording and all wordings of the task."""
        wordings, turns = {}, {}
        iterations = 1
        for role in dict.fromkeys(self.turn_order):
            texts = dict.fromkeys((self.templates[role], *self.task.roles[role].templates))
            if self.config.policy_of(role) == name:
                wordings[role], turns[role] = list(texts), iterations
            iterations *= len(texts)  # over the roles of all policies, to try all combinations
        return PromptPolicy(backbone, wordings, self.config.generation.temperature, turns)

    def _backbone(self, path: str) -> Backbone:
        """Load or create a model."""
        model, generation = self.config.model, self.config.generation
        if path == TINY:
            backbone = self._tiny()
        else:
            backbone = load_backbone(
                self._folder_of(path),
                dtype=model.dtype,
                trust_remote_code=model.trust_remote_code,
                chat_template=model.chat_template,
                enable_thinking=model.enable_thinking,
            )
        longest = generation.max_prompt_length + generation.max_response_length
        if longest > backbone.max_length:
            raise BackboneError(
                f"generation.max_prompt_length ({generation.max_prompt_length}) plus "
                f"generation.max_response_length ({generation.max_response_length}) is {longest}, "
                f"but model {path} has a context of {backbone.max_length} tokens: lower one of them"
            )
        backbone.model.to(self.device)
        has_bfloat16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        return replace(backbone, autocast=model.autocast and has_bfloat16)

    def _folder_of(self, path: str) -> str:
        """Return a model path, and for a GGUF file the folder that it is converted to."""
        file = model_location(path)
        if file is None or file.suffix != GGUF:
            return path
        identity = [sha256_of(file), version_of("transformers"), version_of("gguf")]
        name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        try:
            return str(self.store.shared_folder(name, functools.partial(convert_gguf, file)))
        except ValueError as error:
            raise BackboneError(f"model {path}: {error}") from error

    def _tiny(self) -> Backbone:
        """Create the tiny model. Runs with the same settings share one warm-up."""
        backbone = tiny_backbone(**self.config.model.tiny.model_dump())
        if self.config.model.warm_up.steps:
            path = self.store.shared_file(self._warm_up_digest(), self._warm_up)
            state = torch.load(path, map_location="cpu", weights_only=True)
            backbone.model.load_state_dict(state)
        return backbone

    def _warm_up(self, path: Path) -> None:
        """Warm up a tiny model and save its weights."""
        settings = self.config.model.warm_up
        backbone = tiny_backbone(**self.config.model.tiny.model_dump())
        logger.info("warming up a tiny model, at most %d steps", settings.steps)
        examples = demonstrations(
            self.task, self.turn_order, self.templates, settings.seed, settings.mistakes
        )

        def log_step(step: int, loss: float) -> None:
            if (step + 1) % max(1, settings.steps // 10) == 0:
                logger.info("warm-up step %d of %d: loss %.3f", step + 1, settings.steps, loss)

        loss = warm_up(backbone, examples, settings, log_step)
        logger.info("warm-up finished: loss %.3f nats per token", loss)
        torch.save(backbone.model.state_dict(), path)

    def _warm_up_digest(self) -> str:
        """Return the digest of everything that affects the weights after warm-up."""
        model, text = self.config.model, self.config.environment.text
        roots = ["llm.warm_up", "llm.policies.backbone", "llm.tasks.registry"]
        if not text.task_is_custom:
            roots.append(f"llm.tasks.{text.task}")
        identity = {
            "tiny": model.tiny.model_dump(),
            "warm_up": model.warm_up.model_dump(),
            "task": task_identity(self.config.environment),
            "turn_order": list(self.turn_order),
            "templates": {role: self.templates[role] for role in self.turn_order},
            "threads": self.config.training.num_threads,
            "code": own_fingerprint(*(f"heteromark.{root}" for root in roots)),
            "versions": versions() | text_versions(),
        }
        content = json.dumps(identity, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]
