"""Small chat models in the manner of three families, written as folders: no download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AddedToken,
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
)

_CORPUS = (
    "system user assistant model think answer question",
    "What is 12 + 34? The result of 49 + 97 is 146.\n\nAnswer with the number only.\n",
    "You are a careful assistant. Say hello, then stop.",
)


@dataclass(frozen=True)
class Family:
    """How a family of chat models marks turns.

    Attributes:
        model_type: of transformers.
        template: its chat template.
        special: special tokens; the first begins a text, the second ends one.
        end_of_turn: the token that its template writes after a turn.
        added: added tokens that are not special.
        writes_begin: whether its tokenizer begins every text with the first special token.
    """

    model_type: str
    template: str
    special: Sequence[str]
    end_of_turn: str
    added: Sequence[str] = ()
    writes_begin: bool = True


FAMILIES = {
    "llama": Family(
        "llama",
        "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}"
        "<|end_header_id|>\n\n{{ message.content | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ("<|begin|>", "<|end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
    ),
    "gemma3": Family(
        "gemma3_text",
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        "{{ bos_token }}{% for message in messages %}<start_of_turn>"
        "{{ 'model' if message.role == 'assistant' else message.role }}\n"
        "{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<end_of_turn>",
        added=("\n\n", "<table>"),
    ),
    "qwen3": Family(
        "qwen3",
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
        ("<|im_start|>", "<|endoftext|>", "<|im_end|>"),
        "<|im_end|>",
        added=("<think>", "</think>"),
        writes_begin=False,
    ),
}


def chat_tokenizer(family: Family, template: str | None = None) -> PreTrainedTokenizerFast:
    """Create a byte-level tokenizer with the family's tokens and template, or another one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_special_tokens(list(family.special))
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in family.added])
    begin, end, *others = family.special
    if family.writes_begin:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=begin,
        eos_token=end,
        additional_special_tokens=others,
        chat_template=template or family.template,
        clean_up_tokenization_spaces=False,
    )


def write_chat_model(
    folder: Path, family: Family, template: str | None = None, end_ids: Sequence[int] = ()
) -> Path:
    """Write a small model with random weights, and return its folder.

    Args:
        folder: does not exist yet.
        family: of the model.
        template: a chat template instead of the family's.
        end_ids: end tokens in its generation config.
    """
    tokenizer = chat_tokenizer(family, template)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(
                family.model_type,
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                head_dim=8,
                max_position_embeddings=256,
                eos_token_id=tokenizer.eos_token_id,
                dtype=torch.float32,
            )
        )
    if end_ids:
        model.generation_config = GenerationConfig(
            eos_token_id=list(end_ids), do_sample=True, top_k=1, temperature=0.1
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
