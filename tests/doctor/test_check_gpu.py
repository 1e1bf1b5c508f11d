"""`heteromark check-gpu`: the machine, and which language models fit into it."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from projects import Project
from rich.console import Console
from safetensors.torch import save_file

from heteromark.config.models.llm import ModelConfig, TinyModelConfig
from heteromark.doctor.finding import GIBIBYTE, Finding, Level
from heteromark.doctor.gpu.check_gpu import fits, report, size
from heteromark.doctor.gpu.devices import Cpu, Gpu, Machine
from heteromark.doctor.gpu.model_memory import Estimate, Work, estimate
from heteromark.doctor.gpu.model_size import (
    ModelSize,
    UnknownSize,
    size_of,
    stored_parameters,
)
from heteromark.doctor.gpu.presets import Preset, model_presets
from heteromark.llm.policies.backbone import tiny_backbone
from heteromark.llm.policies.language_model import Lora, adapter_policies
from heteromark.llm.sampling import response_log_probs

CPU = Cpu(cores=4, total=16 * GIBIBYTE, available=8 * GIBIBYTE)
# Two layers: width 10 between layers, 30 within, queries of 20, keys and values of 10 each.
SMALL = ModelSize(
    parameters=1000, adapter=2 * 220, width=2 * 80, cache=2 * 20, vocabulary=100, dtype="float32"
)
WORK = Work(responses=8, prompt_length=6, response_length=4, lora_rank=3)


def printed(machine, presets=(), findings=(), width=80) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        for each in report(machine, presets, findings):
            console.print(each, markup=False, highlight=False, soft_wrap=isinstance(each, str))
    return captured.get()


# --- sizes ----------------------------------------------------------------------------------------


def test_sizes_by_hand():
    found = size_of(ModelConfig(tiny=TinyModelConfig(hidden_size=8, num_layers=2, num_heads=2)))
    # queries of 8, keys and values of 4 each, a perceptron of 24
    matrices = 8 * 8 + 8 * 4 + 8 * 4 + 8 * 8 + 3 * 8 * 24
    assert found == ModelSize(
        parameters=99 * 8 + 2 * (matrices + 2 * 8) + 8,
        adapter=2 * (16 + 12 + 12 + 16 + 3 * 32),
        width=2 * (8 + 24 + 8 + 4 + 4),
        cache=2 * (4 + 4),
        vocabulary=99,
        dtype="float32",
    )


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("google/gemma-3-270m-it", 268_098_176),
        ("google/gemma-3-1b-it", 999_885_952),
        ("Qwen/Qwen3-0.6B", 596_049_920),
        ("Qwen/Qwen3-1.7B", 1_720_574_976),
    ],
)
def test_known_models_have_as_many_parameters_as_they_are_published_with(name, parameters):
    assert size_of(ModelConfig(path=name)).parameters == parameters


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3"])
def test_tiny_models_are_as_large_as_they_are_built(architecture):
    tiny = TinyModelConfig(architecture=architecture, hidden_size=32, num_layers=2)
    backbone = tiny_backbone(**tiny.model_dump())
    found = size_of(ModelConfig(tiny=tiny))
    assert found.parameters == backbone.model.num_parameters()
    policies = adapter_policies(backbone, ["one"], Lora(rank=4))
    trained = policies["one"].trained_parameters().values()
    assert 4 * found.adapter == sum(weight.numel() for weight in trained)


def test_the_size_of_a_folder_is_read_from_its_files(tmp_path):
    tiny = TinyModelConfig(hidden_size=32, num_layers=2)
    backbone = tiny_backbone(**tiny.model_dump())
    # in several files, like large models
    backbone.model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model*.safetensors"))) > 1
    found = size_of(ModelConfig(path=str(tmp_path), dtype="bfloat16"))
    assert found.parameters == backbone.model.num_parameters()
    assert found == replace(size_of(ModelConfig(tiny=tiny)), dtype="bfloat16")


def test_unknown_sizes_are_reported(tmp_path):
    with pytest.raises(
        UnknownSize, match="the size of someone/something is unknown: it is neither a folder"
    ):
        size_of(ModelConfig(path="someone/something"))
    with pytest.raises(UnknownSize, match=r"has no model\*\.safetensors"):
        stored_parameters(tmp_path)
    for content in (b"", b"not a header at all", b"\x02" + bytes(7) + b"[]", b"\xff" * 8):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(UnknownSize, match="is damaged or not a safetensors file"):
            stored_parameters(tmp_path)
    save_file({"a": torch.zeros(3, 4)}, tmp_path / "model.safetensors", {"format": "pt"})
    assert stored_parameters(tmp_path) == 12
    for content in (None, "{", '{"num_attention_heads": 2}'):
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(UnknownSize, match=r"config\.json cannot be read"):
            size_of(ModelConfig(path=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_layer": 1}')
    with pytest.raises(UnknownSize, match="has no intermediate_size"):
        size_of(ModelConfig(path=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(UnknownSize, match="cannot be built"):
        size_of(ModelConfig(path=str(tmp_path)))


# --- memory ---------------------------------------------------------------------------------------


def test_estimates_by_hand():
    single, half = SMALL, replace(SMALL, dtype="bfloat16")
    # keys and values of 10 tokens in 2 layers of width 10, and the logits of one token
    assert estimate(single, "inference", WORK) == Estimate(4000, 0, 2 * 2 * 10 * 10 * 4 + 16 * 100)
    assert estimate(half, "inference", WORK) == Estimate(2000, 0, 2 * 2 * 10 * 10 * 2 + 16 * 100)
    # a layer's width is 10 + 30 + 20 + 2x10 = 80; logits of 4 tokens
    kept = 80 * 2 * 10 * 4.5 * 4 + 16 * 100 * 4
    assert estimate(single, "full", WORK) == Estimate(4000, 3 * 4000, kept)
    assert estimate(half, "full", WORK).training == 3 * 2000
    # adapters are always float32
    adapter = 4 * 3 * SMALL.adapter
    assert estimate(half, "LoRA", WORK) == Estimate(
        2000 + adapter, 3 * adapter, 80 * 2 * 10 * 6.5 * 2 + 16 * 100 * 4
    )


def test_the_estimated_memory_per_response_is_close_to_torchs():
    """On a model of two layers: the estimate is too high by less than a factor of two."""
    tiny = TinyModelConfig(hidden_size=64, num_layers=2)
    backbone = tiny_backbone(**tiny.model_dump())
    weights = {weight.untyped_storage().data_ptr() for weight in backbone.model.parameters()}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (
                storage.nbytes(),
                tensor,
            )  # keep a reference, so that no storage is reused
        return tensor

    prompts, responses = torch.randint(3, 90, (2, 60)), torch.randint(3, 90, (2, 40))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        response_log_probs(
            backbone.model,
            prompts,
            torch.ones_like(prompts, dtype=torch.bool),
            responses,
            torch.ones_like(responses, dtype=torch.bool),
            1.0,
        )
    measured = sum(number for number, _ in kept.values()) / 2
    work = Work(responses=2, prompt_length=60, response_length=40, lora_rank=4)
    assert measured < estimate(size_of(ModelConfig(tiny=tiny)), "full", work).response
    assert measured > estimate(size_of(ModelConfig(tiny=tiny)), "full", work).response / 2


def test_fits():
    needed = Estimate(weights=GIBIBYTE, training=3 * GIBIBYTE, response=GIBIBYTE // 4)
    assert needed.total(8) == 7 * GIBIBYTE  # including 1 GiB for torch itself
    assert fits(needed, 7 * GIBIBYTE, 8) == "yes"
    assert fits(needed, 7 * GIBIBYTE - 1, 8) == "up to 7"
    assert fits(needed, 5 * GIBIBYTE + GIBIBYTE // 4, 8) == "up to 1"
    assert fits(needed, 5 * GIBIBYTE, 8) == "no"
    assert fits(needed, 0, 8) == "no"


def test_readable_sizes():
    assert (size(512 * 2**20), size(GIBIBYTE), size(140 * GIBIBYTE)) == (
        "512 MiB",
        "1.0 GiB",
        "140.0 GiB",
    )


# --- the report -----------------------------------------------------------------------------------


def tiny_preset(**model) -> Preset:
    return Preset("tiny", ModelConfig(**model), Work(256, 256, 32, 32))


def verdicts(text: str) -> list[str]:
    """Return the verdicts on inference, LoRA and full training."""
    first = next(i for i, line in enumerate(text.splitlines()) if "inference" in line)
    return [line.split()[-1] for line in text.splitlines()[first : first + 3]]


def test_gpus_are_listed_and_the_one_with_the_most_free_memory_decides():
    gpus = (
        Gpu("NVIDIA Small", 8 * GIBIBYTE, GIBIBYTE // 2, "7.5", bfloat16=False),
        Gpu("NVIDIA Large", 80 * GIBIBYTE, 79 * GIBIBYTE, "9.0", bfloat16=True),
    )
    text = printed(Machine(gpus, CPU, "2.13.0", "12.8"), [tiny_preset()])
    assert text.startswith("torch 2.13.0, CUDA 12.8\n")
    assert (
        "GPU 0: NVIDIA Small, 8.0 GiB of memory, 512 MiB free, compute capability 7.5, no bfloat16"
        in text
    )
    assert "GPU 1: NVIDIA Large, 80.0 GiB of memory, 79.0 GiB free, compute capability 9.0, bf" in (
        text
    )
    assert "whether they fit GPU 1" in text
    assert "use the CPU" not in text
    assert verdicts(text) == ["yes", "yes", "yes"]
    crowded = Machine(gpus[:1], CPU, "2.13.0", "12.8")
    assert verdicts(printed(crowded, [tiny_preset()])) == ["no", "no", "no"]


def test_without_a_gpu_the_cpu_decides():
    hidden = Finding(Level.WARNING, "finds no GPU", key="torch", value="2", command="nvidia-smi")
    text = printed(Machine((), CPU, "2.13.0+cpu", None), [tiny_preset()], [hidden])
    assert text.startswith("torch 2.13.0+cpu, without CUDA\nno CUDA GPU: runs use the CPU\n")
    assert "torch = '2': finds no GPU; try: nvidia-smi\n" in text
    assert "CPU: 4 cores, 16.0 GiB of memory, 8.0 GiB available\n" in text
    assert "whether they fit the CPU's memory" in text


def test_models_of_unknown_size_are_listed_below_the_table():
    presets = [tiny_preset(), Preset("mine", ModelConfig(path="me/mine"), WORK)]
    text = printed(Machine((), CPU, "2", None), presets)
    assert "mine: the size of me/mine is unknown: it is neither a folder" in text


def test_the_command_in_a_project(project: Project):
    project.write("config/model/big.yaml", "defaults: [qwen3_1.7b, _self_]\ndtype: float32\n")
    result = project.run("heteromark", "check-gpu", CUDA_VISIBLE_DEVICES="", COLUMNS="80")
    text = result.stdout
    assert f"torch {torch.__version__}" in text
    assert "no CUDA GPU: runs use the CPU" in text
    assert "…" not in text  # no cell is cut off in a terminal
    rows = {line.split()[0]: line for line in text.splitlines() if "inference" in line}
    hub = ["gemma3_1b", "gemma3_270m", "qwen3_0.6b", "qwen3_1.7b", "smollm2_135m"]
    assert list(rows)[:7] == ["big", *hub, "tiny"]
    assert "1.72 B" in rows["big"]
    assert "6.4 GiB" in rows["big"]  # 1.72e9 x 4 bytes
    assert "3.2 GiB" in rows["qwen3_1.7b"]
    assert "1.00 B" in rows["gemma3_1b"]
    assert "0.8 M" in rows["tiny"]
    assert "grpo.micro_batch_size responses" in text


def test_outside_a_project_the_machine_is_reported(tmp_path):
    text = Project(tmp_path).run("heteromark", "check-gpu", CUDA_VISIBLE_DEVICES="").stdout
    assert "runs use the CPU" in text
    assert "memory for the models" not in text


def test_an_invalid_preset_is_reported_with_its_file(project: Project):
    project.write("config/model/faulty.yaml", "defaults: [tiny, _self_]\ndtype: float8\n")
    result = project.run("heteromark", "check-gpu", check=False)
    assert result.returncode == 2
    assert "config/model/faulty.yaml: dtype = 'float8'" in result.stderr
    assert "Traceback" not in result.stderr


def test_presets_import_no_torch(project: Project):
    code = (
        "import sys\n"
        "from heteromark.doctor.gpu.presets import model_presets\n"
        "from heteromark.doctor.gpu.check_gpu import report\n"
        "from heteromark.doctor.gpu.devices import Cpu, Machine\n"
        "list(report(Machine((), Cpu(1, 1, 1), '', None), ()))\n"
        "assert model_presets()\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    project.run(sys.executable, "-c", code)


def test_without_transformers_the_machine_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    text = printed(Machine((), CPU, "2", None), [tiny_preset()])
    assert "no CUDA GPU: runs use the CPU" in text
    assert "transformers is not installed. Run: pip install 'heteromark[llm]'" in text


def test_all_presets_of_this_project_have_a_known_size(project: Project, monkeypatch):
    monkeypatch.chdir(project.folder)
    for preset in model_presets():
        assert size_of(preset.model).parameters > 0
