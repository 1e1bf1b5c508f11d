"""`heteromark check-gpu`: print the machine's devices and which language models fit."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table

from heteromark.doctor.finding import GIBIBYTE, Finding, Level
from heteromark.doctor.gpu.devices import Gpu, Machine
from heteromark.doctor.gpu.model_memory import OVERHEAD, USES, Estimate, Work, estimate
from heteromark.doctor.gpu.model_size import UnknownSize, size_of
from heteromark.doctor.gpu.presets import Preset

MEBIBYTE = 2**20


def report(
    machine: Machine, presets: Sequence[Preset], findings: Iterable[Finding] = ()
) -> Iterator[RenderableType]:
    """Yield lines of text and a table: the machine's devices and which presets fit.

    Args:
        findings: reasons why torch may not find an existing GPU.
    """
    cuda = "without CUDA" if machine.cuda_version is None else f"CUDA {machine.cuda_version}"
    yield f"torch {machine.torch_version}, {cuda}"
    for index, gpu in enumerate(machine.gpus):
        yield _gpu_line(index, gpu)
    if not machine.gpus:
        yield "no CUDA GPU: runs use the CPU"
    for finding in findings:
        if finding.level > Level.OK:
            yield f"{finding}; {finding.advice or f'try: {finding.command}'}"
    cpu = machine.cpu
    yield f"CPU: {cpu.cores} cores, {size(cpu.total)} of memory, {size(cpu.available)} available"
    if presets:
        yield ""
        yield from _report_presets(machine, presets)


def size(number: int) -> str:
    """Return a number of bytes in a readable unit: `512 MiB`, `1.5 GiB`."""
    if number < GIBIBYTE:
        return f"{number / MEBIBYTE:.0f} MiB"
    return f"{number / GIBIBYTE:.1f} GiB"


def fits(needed: Estimate, available: int, responses: int) -> str:
    """Return whether one use of a model fits: `yes`, `up to N` responses at once, or `no`."""
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


def _report_presets(machine: Machine, presets: Sequence[Preset]) -> Iterator[RenderableType]:
    if importlib.util.find_spec("transformers") is None:
        yield (
            "the models of config/model/ were not checked: transformers is not installed. Run: "
            "pip install 'heteromark[llm]'"
        )
        return
    available, where = _largest(machine)
    yield f"memory for the models of config/model/, and whether they fit {where}:"
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
                *(("", "") if row else (name, _readable_count(found.parameters))),
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
    """Return the largest free memory of one device, in bytes, and the device's name."""
    if not machine.gpus:
        return machine.cpu.available, "the CPU's memory"
    index, gpu = max(enumerate(machine.gpus), key=lambda numbered: numbered[1].free)
    return gpu.free, f"GPU {index}"


def _assumptions(work: Work) -> Iterator[str]:
    yield "These are estimates:"
    yield (
        f"- in all: weights, training, grpo.micro_batch_size responses, and {size(OVERHEAD)} for "
        "torch itself"
    )
    yield (
        "- training: gradients and Adam's two moments, for all weights or for LoRA's, with rank "
        f"{work.lora_rank} on all linear modules"
    )
    yield (
        f"- response: {work.prompt_length} + {work.response_length} tokens "
        "(generation.max_prompt_length, generation.max_response_length);"
    )
    yield "  roughly the tensors of the backward pass and logits; for inference, keys and values"
    yield "- up to N: fits with grpo.micro_batch_size = N; for inference, N responses at once"
    yield "- all figures are for one policy; with policies=role, full training needs them per role"
    yield "- full training with grpo.beta > 0 keeps a second copy of the weights"


def _readable_count(parameters: int) -> str:
    """Return a number of parameters in readable form: 0.8 M, 268 M, 1.72 B."""
    millions = parameters / 1e6
    if millions >= 999.5:
        return f"{millions / 1000:.2f} B"
    return f"{millions:.0f} M" if millions >= 10 else f"{millions:.1f} M"
