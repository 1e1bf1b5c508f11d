"""Causal language models: a Hugging Face folder or name, or tiny ones that need no download."""

from __future__ import annotations

import functools
import hashlib
import json
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

Architecture = Literal["llama", "gemma3", "qwen3"]
DType = Literal["float32", "bfloat16"]

PAD, END, UNKNOWN = "<pad>", "<end>", "<unknown>"
# What tiny models read and write: printable ASCII and the newline.
CHARACTERS = "\n" + "".join(sorted(set(string.printable) - set(string.whitespace) | {" "}))


class BackboneError(ValueError):
    """A model that cannot be used. The message says why, and what to do."""


@dataclass(frozen=True)
class Backbone:
    """A model in evaluation mode, with its tokenizer.

    Attributes:
        max_length: tokens of a prompt and its response together.
        autocast: matrix products are computed in bfloat16, whatever the weights are.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    autocast: bool = False

    @functools.cached_property
    def fingerprint(self) -> Tensor:
        """SHA-256 of the weights and the vocabulary, `[32]` bytes; computed when first asked for.

        Adapters count for nothing: the model has the same fingerprint with and without them.
        """
        weights = {
            name.removeprefix("base_model.model.").replace(".base_layer.", "."): weight
            for name, weight in self.model.named_parameters()
            if ".lora_" not in name
        }
        digest = hashlib.sha256(json.dumps(self.tokenizer.get_vocab(), sort_keys=True).encode())
        for name, weight in sorted(weights.items()):
            digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
            digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy())
        return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def tiny_backbone(architecture: Architecture = "llama", *, seed: int = 0, **sizes: int) -> Backbone:
    """A small model with random weights, over characters; about 0.8 M parameters as it is.

    The weights follow from the seed; torch's global generator is left as it was.

    Args:
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
    """The library's config of a small model over characters."""
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
    """A token per printable ASCII character and newline; anything else is unknown."""
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
    path: str, *, dtype: DType = "float32", trust_remote_code: bool = False
) -> Backbone:
    """Load a model from a folder, or by its name on the Hugging Face hub; safetensors only.

    Raises:
        BackboneError: it is not there, is no causal language model, or is damaged.
    """
    is_folder = path.startswith((".", "/", "~")) or Path(path).exists()
    place = str(Path(path).expanduser()) if is_folder else path
    if is_folder and not Path(place, "config.json").is_file():
        what = "has no config.json" if Path(place).is_dir() else "does not exist"
        raise BackboneError(
            f"model {path} {what}: give a folder written by save_pretrained, a name on the hub, "
            "or tiny"
        )
    options = {"trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(place, **options)
    except (OSError, ValueError, KeyError) as error:
        raise BackboneError(f"model {path}: {_first_line(error)}") from error
    if type(config) not in AutoModelForCausalLM._model_mapping and not trust_remote_code:
        raise BackboneError(
            f"model {path} is a {config.model_type}, which is no causal language model"
        )
    try:
        model, told = AutoModelForCausalLM.from_pretrained(
            place,
            config=config,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
        tokenizer = AutoTokenizer.from_pretrained(place, padding_side="left", **options)
    except Exception as error:  # safetensors, json, pickle refused: each has errors of its own
        raise BackboneError(
            f"model {path} cannot be loaded: {type(error).__name__}: {_first_line(error)}"
        ) from error
    if told["missing_keys"]:
        raise BackboneError(
            f"model {path} lacks weights: {', '.join(sorted(told['missing_keys'])[:3])}, … "
            f"({len(told['missing_keys'])} in all)"
        )
    if tokenizer.eos_token_id is None:
        raise BackboneError(f"model {path}: its tokenizer has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    max_length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return Backbone(model.eval(), tokenizer, max_length or tokenizer.model_max_length)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), repr(error)).strip()
