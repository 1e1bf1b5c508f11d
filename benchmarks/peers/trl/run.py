"""Time TRL's GRPOTrainer on a saved model and a list of sums, on the CPU.

Prints {"iterations", "tokens", "seconds", "sampling_seconds"} as its last line, without the first
iterations. Tokens are completion tokens, sampling is the generation of the completions, and seconds
are of whole iterations.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from importlib import metadata
from pathlib import Path

VERSIONED = ("trl", "transformers", "torch", "accelerate", "datasets")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", action="store_true")
    parser.add_argument("--model", type=Path, help="folder with model and tokenizer")
    parser.add_argument("--sums", type=Path, help="JSON: list of [prompt, answer]")
    parser.add_argument("--problems", type=int, default=64, help="problems per iteration")
    parser.add_argument("--samples", type=int, default=16, help="completions per problem")
    parser.add_argument(
        "--max-length", type=int, default=8, help="length of a completion, in tokens"
    )
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument(
        "--left-out", type=int, default=2, help="first iterations that are not counted"
    )
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.versions:
        print(json.dumps({name: metadata.version(name) for name in VERSIONED}))
        return
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    print(json.dumps(measure(arguments)))


def measure(arguments: argparse.Namespace) -> dict[str, float]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    sums = json.loads(arguments.sums.read_text(encoding="utf-8"))
    dataset = Dataset.from_list([{"prompt": prompt, "answer": answer} for prompt, answer in sums])
    tokens, samplings, marks = [], [], []

    def is_right(completions, answer, completion_ids, **_):
        tokens.append(sum(map(len, completion_ids)))
        return [
            float(said.strip() == right) for said, right in zip(completions, answer, strict=True)
        ]

    class Marks(TrainerCallback):
        def on_step_end(self, *_, **__):
            marks.append(time.perf_counter())

    class Timed(GRPOTrainer):
        def _generate_single_turn(self, *given, **named):
            started = time.perf_counter()
            try:
                return super()._generate_single_turn(*given, **named)
            finally:
                samplings.append(time.perf_counter() - started)

    rows = arguments.problems * arguments.samples
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=rows,
            num_generations=arguments.samples,
            max_completion_length=arguments.max_length,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            beta=0.0,
            loss_type="dapo",
            learning_rate=3e-4,
            lr_scheduler_type="constant",
            max_steps=arguments.iterations + arguments.left_out,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            dataloader_num_workers=0,
        )
        trainer = Timed(
            model=model,
            processing_class=tokenizer,
            reward_funcs=is_right,
            args=config,
            train_dataset=dataset,
            callbacks=[Marks()],
        )
        trainer.train()
    kept = slice(arguments.left_out, None)
    return {
        "iterations": arguments.iterations,
        "tokens": sum(tokens[kept]),
        "seconds": marks[-1] - marks[arguments.left_out - 1],
        "sampling_seconds": sum(samplings[kept]),
    }


if __name__ == "__main__":
    main()
