"""`heteromark check-gpu`: what there is to train on, and which language models fit."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table

from heteromark.doctor.finding import GIBIBYTE, Finding, Level
from heteromark.doctor.gpu.devices import Gpu, Machine
from heteromark.doctor.gpu.model_memory import OVERHEAD, USES, Estimate, Work, estimate
from heteromark.doctor.gpu.model_size import UnknownSize, size_of
from heteromark.doctor.gpu.presets import Preset

MEBIBYTE = 2**20


def told(
    machine: Machine, presets: Sequence[Preset], findings: Sequence[Finding] = ()
) -> Iterator[RenderableType]:
    """What a machine has, and which presets fit: lines of text, and a table.

    Args:
        findings: why torch may not see a GPU that is there.
    """
    cuda = "without CUDA" if machine.cuda_version is None else f"CUDA {machine.cuda_version}"
    yield f"torch {machine.torch_version}, {cuda}"
    for index, gpu in enumerate(machine.gpus):
        yield _gpu_line(index, gpu)
    if not machine.gpus:
        yield "no CUDA GPU: runs go to the CPU"
    for finding in findings:
        if finding.level > Level.OK:
            yield f"{finding}; {finding.advice or f'try: {finding.command}'}"
    cpu = machine.cpu
    yield f"CPU: {cpu.cores} cores, {size(cpu.total)} of memory, {size(cpu.available)} available"
    if presets:
        yield ""
        yield from _presets_told(machine, presets)


def size(number: int) -> str:
    """Bytes for people."""
    if number < GIBIBYTE:
        return f"{number / MEBIBYTE:.0f} MiB"
    return f"{number / GIBIBYTE:.1f} GiB"


def fits(needed: Estimate, available: int, responses: int) -> str:
    """Whether one use of a model fits: yes; up to so many responses at once; or no."""
    most = needed.most_responses(available)
    if most >= responses:
        return "yes"
    return f"up to {most}" if most else "no"


def _gpu_line(index: int, gpu: Gpu) -> str:
    bfloat16 = "bfloat16" if gpu.bfloat16 else "no bfloat16"
    return (
        f"GPU {index}: {gpu.name}, {size(gpu.total)} of memory, {size(gpu.free)} free, "
        f"compute capability {gpu.capability}, {bfloat16}"
    )


def _presets_told(machine: Machine, presets: Sequence[Preset]) -> Iterator[RenderableType]:
    if importlib.util.find_spec("transformers") is None:
        yield (
            "which models of config/model/ fit: language-model agents need transformers, not "
            "installed: `pip install 'heteromark[llm]'`"
        )
        return
    available, where = _largest(machine)
    yield f"memory for the models of config/model/, and whether it fits {where}:"
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("model", "size", "for", "weights", "training", "response", "in all", "fits"):
        is_number = heading in ("size", "weights", "training", "response", "in all")
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=True)
    unknown = []
    for name, model, work in presets:
        try:
            found = size_of(model)
        except UnknownSize as reason:
            unknown.append(f"{name}: {reason}")
            continue
        for row, use in enumerate(USES):
            needed = estimate(found, use, work)
            table.add_row(
                *(("", "") if row else (name, _counted(found.parameters))),
                use,
                size(needed.weights),
                size(needed.training) if needed.training else "-",
                size(needed.response),
                size(needed.total(work.responses)),
                fits(needed, available, work.responses),
            )
    yield table
    yield from unknown
    yield from _assumptions(presets[0].work)


def _largest(machine: Machine) -> tuple[int, str]:
    """The most memory that is free in one place, in bytes, and which place that is."""
    if not machine.gpus:
        return machine.cpu.available, "the CPU's memory"
    index, gpu = max(enumerate(machine.gpus), key=lambda numbered: numbered[1].free)
    return gpu.free, f"GPU {index}"


def _assumptions(work: Work) -> Iterator[str]:
    yield "These are estimates:"
    yield (
        f"- in all: weights, training, the responses of the preset's grpo.micro_batch_size, and "
        f"{size(OVERHEAD)} for torch itself"
    )
    yield (
        "- training: gradients and Adam's two moments, of all weights or of LoRA's, with rank "
        f"{work.lora_rank} on all linear modules"
    )
    yield (
        f"- response: {work.prompt_length} + {work.response_length} tokens "
        "(generation.max_prompt_length, generation.max_response_length);"
    )
    yield "  what the backward pass needs and logits, roughly; for inference keys and values"
    yield "- up to N: fits with a grpo.micro_batch_size of N; for inference, so many responses"
    yield "- one policy; with policies=role, full training takes all this for each role"
    yield "- full training with grpo.beta above 0 keeps the weights once more"


def _counted(parameters: int) -> str:
    """A number of parameters for people: 0.8 M, 268 M, 1.72 B."""
    millions = parameters / 1e6
    if millions >= 999.5:
        return f"{millions / 1000:.2f} B"
    return f"{millions:.0f} M" if millions >= 10 else f"{millions:.1f} M"
