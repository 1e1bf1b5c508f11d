"""Causal language models: from the Hugging Face hub or a folder, or tiny ones without download."""

from __future__ import annotations

import functools
import hashlib
import json
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from heteromark.config.models.llm import AUTO, BARE
from heteromark.llm.policies.chat import PromptFormat

Architecture = Literal["llama", "gemma3", "qwen3"]
DType = Literal["float32", "bfloat16"]

PAD, END, UNKNOWN = "<pad>", "<end>", "<unknown>"
# The characters of tiny models: printable ASCII and the newline.
CHARACTERS = "\n" + "".join(sorted(set(string.printable) - set(string.whitespace) | {" "}))


class BackboneError(ValueError):
    """A model cannot be used. The message says why and what to do."""


@dataclass(frozen=True)
class Backbone:
    """A model in evaluation mode, with its tokenizer.

    Attributes:
        model: a causal language model of transformers, possibly with adapters.
        tokenizer: pads on the left.
        max_length: maximum total tokens of a prompt and its response.
        prompts: turns prompts into tokens; None: as bare text.
        autocast: compute matrix products in bfloat16, regardless of the dtype of the weights.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    prompts: PromptFormat | None = None
    autocast: bool = False

    @functools.cached_property
    def fingerprint(self) -> Tensor:
        """The SHA-256 of the weights and the vocabulary, `[32]` bytes; computed on first access.

        Adapters are excluded: the fingerprint is the same with and without them.
        """
        weights = {
            name.removeprefix("base_model.model.").replace(".base_layer.", "."): weight
            for name, weight in self.model.named_parameters()
            if ".lora_" not in name
        }
        digest = hashlib.sha256(json.dumps(self.tokenizer.get_vocab(), sort_keys=True).encode())
        for name, weight in sorted(weights.items()):
            digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
            digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
        return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def tiny_backbone(architecture: Architecture = "llama", *, seed: int = 0, **sizes: int) -> Backbone:
    """Create a small character-level model with random weights; by default 0.8 M parameters.

    The weights depend only on the seed. Torch's global generator does not change.

    Args:
        architecture: the model family.
        seed: seed of the weights.
        sizes: see `tiny_config`.
    """
    config = tiny_config(architecture, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    return Backbone(model.eval(), character_tokenizer(), config.max_position_embeddings)


def tiny_config(
    architecture: Architecture = "llama",
    *,
    hidden_size: int = 128,
    num_layers: int = 4,
    num_heads: int = 4,
    max_length: int = 512,
) -> PreTrainedConfig:
    """Return the transformers config of a small character-level model."""
    tokenizer = character_tokenizer()
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden_size,
        "intermediate_size": 3 * hidden_size,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "num_key_value_heads": max(1, num_heads // 2),
        "head_dim": hidden_size // num_heads,
        "max_position_embeddings": max_length,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "dtype": torch.float32,
    }
    if architecture == "gemma3":
        return AutoConfig.for_model("gemma3_text", **sizes, sliding_window=max_length)
    return AutoConfig.for_model(architecture, **sizes)


def character_tokenizer() -> PreTrainedTokenizerFast:
    """Create a tokenizer with one token per printable ASCII character and newline.

    All other characters become the unknown token.
    """
    vocabulary = {text: number for number, text in enumerate((PAD, END, UNKNOWN, *CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
    )


def load_backbone(
    path: str,
    *,
    dtype: DType = "float32",
    trust_remote_code: bool = False,
    chat_template: str = AUTO,
    enable_thinking: bool = False,
) -> Backbone:
    """Load a model from a folder, or by its name from the Hugging Face hub; safetensors only.

    A response ends at the tokenizer's end token, at those of the model's generation_config.json, or
    at the end of a turn in the chat template. Nothing else is taken from generation_config.json.

    Args:
        path: the folder or the name.
        dtype: of the weights.
        trust_remote_code: run code that comes with the model.
        chat_template: auto: the tokenizer's, if it has one; none: bare text; or a file.
        enable_thinking: whether the chat template may ask the model to think first.

    Raises:
        BackboneError: The model does not exist, is not a causal language model, or is damaged.
    """
    is_folder = path.startswith((".", "/", "~")) or Path(path).exists()
    source = str(Path(path).expanduser()) if is_folder else path
    if is_folder and not Path(source, "config.json").is_file():
        problem = "has no config.json" if Path(source).is_dir() else "does not exist"
        raise BackboneError(
            f"model {path} {problem}: use a folder written by save_pretrained, a model name on the "
            "Hugging Face hub, or tiny"
        )
    options = {"trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError) as error:
        raise BackboneError(f"model {path}: {_first_line(error)}") from error
    if type(config) not in AutoModelForCausalLM._model_mapping and not trust_remote_code:
        raise BackboneError(
            f"model {path} has type {config.model_type}, which is not a causal language model"
        )
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
        model, loading_info = loaded
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **options)
    except Exception as error:  # the loaders share no exception class
        raise BackboneError(
            f"model {path} cannot be loaded: {type(error).__name__}: {_first_line(error)}"
        ) from error
    if missing := sorted(loading_info["missing_keys"]):
        raise BackboneError(
            f"model {path} lacks weights: {', '.join(missing[:3])}, … ({len(missing)} in total)"
        )
    if tokenizer.eos_token_id is None:
        raise BackboneError(f"the tokenizer of model {path} has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    try:
        prompts = PromptFormat(
            tokenizer,
            template=_template(tokenizer, chat_template),
            thinks=enable_thinking,
            end_ids=_end_ids(model),
        )
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"model {path}: {_first_line(error)}; set model.chat_template=none, or a file"
        ) from error
    max_length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return Backbone(model.eval(), tokenizer, max_length or tokenizer.model_max_length, prompts)


def _template(tokenizer: PreTrainedTokenizerBase, chosen: str) -> str | None:
    """Return the chat template that a setting names."""
    if chosen == BARE:
        return None
    if chosen != AUTO:
        return Path(chosen).expanduser().read_text(encoding="utf-8")
    # a tokenizer may have several templates by name; get_chat_template returns the usual one
    return tokenizer.get_chat_template() if tokenizer.chat_template else None


def _end_ids(model: Any) -> Sequence[int]:
    """Return the end tokens of a model's generation config, which has one, several or none."""
    found = getattr(model.generation_config, "eos_token_id", None)
    return () if found is None else [found] if isinstance(found, int) else found


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), repr(error)).strip()
