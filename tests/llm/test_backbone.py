"""Language models, tiny and from folders."""

from __future__ import annotations

import string

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from heteromark.llm.policies.backbone import (
    CHARACTERS,
    BackboneError,
    character_tokenizer,
    load_backbone,
    tiny_backbone,
)


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a tiny model, written by save_pretrained."""
    backbone = tiny_backbone("qwen3", hidden_size=32, num_layers=2)
    backbone.model.save_pretrained(tmp_path / "model")
    backbone.tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "qwen3"])
def test_a_tiny_model_has_about_a_million_weights_determined_by_the_seed(architecture):
    state = torch.get_rng_state()
    first, again, other = (tiny_backbone(architecture, seed=seed).model for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert 0.7e6 < first.num_parameters() < 1.3e6
    assert first.config.model_type.startswith(architecture)
    weights = [model.get_input_embeddings().weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not first.training


def test_encoding_and_decoding_preserves_characters():
    tokenizer = character_tokenizer()
    text = string.printable[:95] + "\n  two  spaces <end> <pad>"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert len(tokenizer(text).input_ids) == len(text)
    assert tokenizer("é").input_ids == [tokenizer.unk_token_id]
    assert len(CHARACTERS) == 96


def test_a_loaded_model_equals_the_saved_one(folder):
    loaded = load_backbone(str(folder))
    saved = tiny_backbone("qwen3", hidden_size=32, num_layers=2)
    for name, weight in saved.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weight)
    assert loaded.max_length == 512
    assert loaded.tokenizer("12+3").input_ids == saved.tokenizer("12+3").input_ids
    assert loaded.tokenizer.padding_side == "left"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_is_applied(folder, dtype):
    assert load_backbone(str(folder), dtype=dtype).model.dtype == getattr(torch, dtype)


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(BackboneError, match=r"absent does not exist: use a folder written by"):
        load_backbone(str(tmp_path / "absent"))


def test_a_folder_without_a_model_is_reported(tmp_path):
    with pytest.raises(BackboneError, match=r"has no config\.json"):
        load_backbone(str(tmp_path))


def test_damaged_weights_are_reported(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BackboneError, match="cannot be loaded: SafetensorError"):
        load_backbone(str(folder))


def test_missing_weights_are_reported_not_drawn(folder):
    smaller = tiny_backbone("qwen3", hidden_size=32, num_layers=1).model
    smaller.save_pretrained(folder.parent / "smaller")
    (folder.parent / "smaller" / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(BackboneError, match=r"lacks weights: model\.layers\.1\."):
        load_backbone(str(folder))


def test_pickled_weights_are_rejected(folder):
    (folder / "model.safetensors").unlink()
    torch.save(tiny_backbone(hidden_size=32).model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_backbone(str(folder))


def test_other_model_types_are_rejected(tmp_path):
    config = T5Config(d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8, vocab_size=32)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="has type t5, which is not a causal language model"):
        load_backbone(str(tmp_path))
