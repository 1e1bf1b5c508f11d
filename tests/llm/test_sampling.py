"""Sampling of responses, and their log-probabilities by a forward pass."""

from __future__ import annotations

import pytest
import torch

from heteromark.llm.backbone import Backbone, tiny_backbone
from heteromark.llm.sampling import Responses, response_log_probs, sample

PROMPTS = ("12+34=", "a much longer prompt than the other: 7*8=", "7")


@pytest.fixture(scope="module", params=["llama", "gemma3", "qwen3"])
def backbone(request) -> Backbone:
    backbone = tiny_backbone(request.param, hidden_size=32, num_layers=2)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # so that it has opinions, and ends some responses early
        for weight in backbone.model.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    return backbone


def encoded(backbone: Backbone, prompts=PROMPTS) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = backbone.tokenizer(list(prompts), return_tensors="pt", padding=True)
    return tokens.input_ids, tokens.attention_mask.bool()


def sampled(backbone: Backbone, prompts=PROMPTS, **changes) -> Responses:
    settings = {"samples": 4, "max_length": 12, "temperature": 0.9} | changes
    return sample(
        backbone.model,
        *encoded(backbone, prompts),
        end_id=backbone.tokenizer.eos_token_id,
        pad_id=backbone.tokenizer.pad_token_id,
        generator=torch.Generator().manual_seed(settings.pop("seed", 0)),
        **settings,
    )


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_sampled_and_computed_log_probs_agree(backbone, temperature):
    found = sampled(backbone, temperature=temperature)
    ids, mask = (each.repeat_interleave(4, 0) for each in encoded(backbone))
    computed = response_log_probs(backbone.model, ids, mask, found.ids, found.mask, temperature)
    torch.testing.assert_close(computed, found.log_prob, atol=1e-5, rtol=0)
    assert (found.log_prob[found.mask] < 0).all()


def test_the_first_token_is_drawn_from_the_models_distribution(backbone):
    found = sampled(backbone, ("12+34=",), samples=20_000, max_length=1)
    with torch.no_grad():
        logits = backbone.model(encoded(backbone, ("12+34=",))[0]).logits[0, -1]
    expected = (logits / 0.9).softmax(-1)
    shares = torch.bincount(found.ids[:, 0], minlength=len(expected)) / len(found.ids)
    # four standard deviations of a share
    assert ((shares - expected).abs() <= 4 * (expected / 20_000).sqrt() + 1e-3).all()


def test_greedy_responses_are_those_of_the_library(backbone):
    found = sampled(backbone, temperature=0.0, samples=1)
    ids, mask = encoded(backbone)
    theirs = backbone.model.generate(
        input_ids=ids, attention_mask=mask.long(), max_new_tokens=12, do_sample=False
    )[:, ids.shape[1] :]
    assert torch.equal(found.ids, theirs[:, : found.ids.shape[1]])


def test_responses_end_with_the_end_token_and_no_later(backbone):
    end = backbone.tokenizer.eos_token_id
    found = sampled(backbone, samples=64, max_length=40, temperature=1.5)
    lengths = found.mask.sum(-1)
    assert lengths.min() < lengths.max() == found.ids.shape[1]
    for ids, mask, length in zip(found.ids, found.mask, lengths.tolist(), strict=True):
        assert mask[:length].all()
        assert (ids[: length - 1] != end).all()
        assert length == 40 or ids[length - 1] == end
        assert (ids[length:] == backbone.tokenizer.pad_token_id).all()


def test_masks_do_not_depend_on_the_padding_token(backbone):
    end = backbone.tokenizer.eos_token_id
    usual = sampled(backbone, samples=64, max_length=40, temperature=1.5)
    same = sample(
        backbone.model,
        *encoded(backbone),
        samples=64,
        max_length=40,
        temperature=1.5,
        end_id=end,
        pad_id=end,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(usual.mask, same.mask)
    assert torch.equal(usual.ids[usual.mask], same.ids[same.mask])


def test_padding_of_prompts_changes_no_log_prob(backbone):
    together = sampled(backbone, temperature=0.0, samples=1)
    for row, prompt in enumerate(PROMPTS):
        alone = sampled(backbone, (prompt,), temperature=0.0, samples=1)
        length = alone.ids.shape[1]
        assert torch.equal(together.ids[row, :length], alone.ids[0])
        torch.testing.assert_close(
            together.log_prob[row, :length], alone.log_prob[0], atol=1e-5, rtol=0
        )


def test_the_same_seed_gives_the_same_responses_and_another_does_not(backbone):
    first, again, other = (sampled(backbone, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(first.log_prob, again.log_prob)
    assert not torch.equal(first.ids, other.ids)


def test_a_prompt_is_read_once_however_many_responses_it_gets(backbone):
    read = []
    handle = backbone.model.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    try:
        sampled(backbone, samples=5, max_length=2, temperature=1.0)
    finally:
        handle.remove()
    assert read[0] == (3, encoded(backbone)[0].shape[1])
    assert read[1] == (15, 1)


def test_log_probs_and_gradients_are_those_of_each_response_alone(backbone):
    """Together, the prompts are read once; alone, a prompt and its response are read at once."""
    found = sampled(backbone)
    ids, mask = (each.repeat_interleave(4, 0) for each in encoded(backbone))
    shuffled = torch.randperm(len(ids), generator=torch.Generator().manual_seed(2))
    rows = [each[shuffled] for each in (ids, mask, found.ids, found.mask)]
    parameters = list(backbone.model.parameters())
    together = response_log_probs(backbone.model, *rows, 0.9)
    alone = torch.cat(
        [
            response_log_probs(backbone.model, *(each[row : row + 1] for each in rows), 0.9)
            for row in range(len(ids))
        ]
    )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    weights = torch.linspace(-1, 1, alone.numel()).view(alone.shape)
    gradients = [
        torch.autograd.grad((each * weights).sum(), parameters) for each in (together, alone)
    ]
    for shared, single in zip(*gradients, strict=True):
        torch.testing.assert_close(shared, single, atol=1e-4, rtol=1e-4)


def test_log_probs_read_a_prompt_once_however_many_responses_it_has(backbone):
    found = sampled(backbone, samples=4, max_length=3)
    ids, mask = (each.repeat_interleave(4, 0) for each in encoded(backbone))
    read = []
    handle = backbone.model.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    try:
        response_log_probs(backbone.model, ids, mask, found.ids, found.mask, 0.9)
    finally:
        handle.remove()
    assert read == [(3, ids.shape[1]), (12, found.ids.shape[1] - 1)]
