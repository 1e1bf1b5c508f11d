"""Convert GGUF files to model folders."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

logger = logging.getLogger("heteromark")


def convert_gguf(file: Path, folder: Path) -> None:
    """Write the model in a GGUF file as a folder of `save_pretrained`, with float32 weights.

    Quantised weights are dequantised, so that they can be trained. Reading a GGUF file takes ten
    times as long as reading the folder.

    Raises:
        ValueError: the file is damaged, or transformers cannot read its architecture.
    """
    logger.info("converting %s to a model folder, once on this machine", file.name)
    source: dict[str, Any] = {"gguf_file": file.name}
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            file.parent, dtype=torch.float32, **source
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **source)
    except Exception as error:  # the readers share no exception class
        raise ValueError(f"it cannot be read: {type(error).__name__}: {error}") from error
    # transformers refuses to save a model that it read from a quantised file
    config = copy.deepcopy(loaded.config)
    del config.quantization_config
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(loaded.state_dict())
    model.generation_config = loaded.generation_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
