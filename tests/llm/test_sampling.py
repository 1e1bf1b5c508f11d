"""Test the sampling of responses, and their log-probabilities in a forward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
from scripted import make_request
from transformers import GPT2Config, GPT2LMHeadModel

from heteromark.llm.policies.backbone import Backbone, character_tokenizer, tiny_backbone
from heteromark.llm.sampling import Responses, response_log_probs, sample

PROMPTS = ("12+34=", "a much longer prompt than the other: 7*8=", "7")


def with_absolute_positions() -> Backbone:
    """Create a model that, unlike the tiny models, is sensitive to absolute positions."""
    tokenizer = character_tokenizer()
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes, **ends
            )
        )
    return Backbone(model.eval(), tokenizer, 128)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("gemma3", "qwen3", "gpt2")]


@pytest.fixture(scope="module", params=["llama", *SLOW])
def backbone(request) -> Backbone:
    if request.param == "gpt2":
        backbone = with_absolute_positions()
    else:
        backbone = tiny_backbone(request.param, hidden_size=32, num_layers=2)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # so that outputs are not uniform, and some responses end early
        for weight in backbone.model.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    return backbone


def encoded(backbone: Backbone, prompts=PROMPTS) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = backbone.tokenizer(list(prompts), return_tensors="pt", padding=True)
    return tokens.input_ids, tokens.attention_mask.bool()


def sampled(backbone: Backbone, prompts=PROMPTS, **changes) -> Responses:
    settings = {"samples": 4, "max_response_length": 12, "temperature": 0.9} | changes
    generator = torch.Generator().manual_seed(settings.pop("seed", 0))
    end_ids = settings.pop("end_ids", (backbone.tokenizer.eos_token_id,))
    return sample(
        backbone.model,
        *encoded(backbone, prompts),
        make_request(max_prompt_length=64, generator=generator, **settings),
        end_ids=end_ids,
        pad_id=backbone.tokenizer.pad_token_id,
    )


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_sampled_and_computed_log_probs_agree(backbone, temperature):
    found = sampled(backbone, temperature=temperature)
    ids, mask = (each.repeat_interleave(4, 0) for each in encoded(backbone))
    computed = response_log_probs(backbone.model, ids, mask, found.ids, found.mask, temperature)
    torch.testing.assert_close(computed, found.log_prob, atol=1e-5, rtol=0)
    assert (found.log_prob[found.mask] < 0).all()


def test_the_first_token_is_drawn_from_the_models_distribution(backbone):
    found = sampled(backbone, ("12+34=",), samples=20_000, max_response_length=1)
    with torch.no_grad():
        logits = backbone.model(encoded(backbone, ("12+34=",))[0]).logits[0, -1]
    expected = (logits / 0.9).softmax(-1)
    shares = torch.bincount(found.ids[:, 0], minlength=len(expected)) / len(found.ids)
    # four standard deviations of a share
    assert ((shares - expected).abs() <= 4 * (expected / 20_000).sqrt() + 1e-3).all()


def test_greedy_responses_equal_those_of_transformers(backbone):
    found = sampled(backbone, temperature=0.0, samples=1)
    ids, mask = encoded(backbone)
    theirs = backbone.model.generate(
        input_ids=ids, attention_mask=mask.long(), max_new_tokens=12, do_sample=False
    )[:, ids.shape[1] :]
    assert torch.equal(found.ids, theirs[:, : found.ids.shape[1]])


def test_responses_end_with_the_end_token_and_no_later(backbone):
    end = backbone.tokenizer.eos_token_id
    found = sampled(backbone, samples=64, max_response_length=40, temperature=1.5)
    lengths = found.mask.sum(-1)
    assert lengths.min() < lengths.max() == found.ids.shape[1]
    for ids, mask, length in zip(found.ids, found.mask, lengths.tolist(), strict=True):
        assert mask[:length].all()
        assert (ids[: length - 1] != end).all()
        assert length == 40 or ids[length - 1] == end
        assert (ids[length:] == backbone.tokenizer.pad_token_id).all()


def test_masks_do_not_depend_on_the_padding_token(backbone):
    end = backbone.tokenizer.eos_token_id
    usual = sampled(backbone, samples=64, max_response_length=40, temperature=1.5)
    same = sample(
        backbone.model,
        *encoded(backbone),
        make_request(
            samples=64,
            max_prompt_length=64,
            max_response_length=40,
            temperature=1.5,
            generator=torch.Generator().manual_seed(0),
        ),
        end_ids=[end],
        pad_id=end,
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


@contextlib.contextmanager
def what_is_read(backbone: Backbone) -> Iterator[list[tuple[int, int]]]:
    """Record the shapes of the model's inputs."""
    shapes: list[tuple[int, int]] = []
    handle = backbone.model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    try:
        yield shapes
    finally:
        handle.remove()


def test_a_prompt_is_processed_once_for_all_its_responses(backbone):
    with what_is_read(backbone) as shapes:
        sampled(backbone, samples=5, max_response_length=2, temperature=1.0)
    assert shapes[0] == (3, encoded(backbone)[0].shape[1])
    assert shapes[1] == (15, 1)


def test_ended_responses_are_no_longer_computed(backbone):
    """And the remaining responses do not depend on those that have ended."""
    before = sampled(backbone, samples=64)
    frequent = before.ids[before.mask].bincount().argmax().item()
    with what_is_read(backbone) as shapes:
        found = sampled(backbone, samples=64, max_response_length=80, end_ids=[frequent])
    computed = [rows for rows, _ in shapes[1:]]
    assert min(computed) < max(computed) == 3 * 64
    for rows, num_open in zip(computed, found.mask[:, 1:].sum(0).tolist(), strict=True):
        assert num_open <= rows < 2 * num_open
    ids, mask = (each.repeat_interleave(64, 0) for each in encoded(backbone))
    again = response_log_probs(backbone.model, ids, mask, found.ids, found.mask, 0.9)
    torch.testing.assert_close(again, found.log_prob, atol=1e-5, rtol=0)


def log_probs_along(backbone: Backbone, prompt: str, ids: torch.Tensor, temperature: float):
    """Return log-probabilities of all tokens at each position: `[responses, length, tokens]`."""
    prompt_ids, _ = encoded(backbone, (prompt,))
    both = torch.cat([prompt_ids.expand(len(ids), -1), ids], -1)
    with torch.no_grad():
        logits = backbone.model(both).logits[:, prompt_ids.shape[1] - 1 : -1]
    return (logits / temperature).log_softmax(-1)


def ranks_and_shares(backbone, found, temperature) -> tuple[torch.Tensor, torch.Tensor]:
    """Return, for each sampled token, the number and total probability of likelier tokens."""
    every = log_probs_along(backbone, PROMPTS[0], found.ids, temperature)
    chosen = every.gather(-1, found.ids.unsqueeze(-1))
    above = every > chosen + 1e-5
    share = (every.exp() * above).sum(-1)
    return above.sum(-1)[found.mask], share[found.mask]


@pytest.mark.parametrize(("top_k", "top_p"), [(3, 1.0), (None, 0.6), (4, 0.8), (2000, 1.0)])
def test_truncated_sampling_stays_among_the_likely_tokens(backbone, top_k, top_p):
    settings = {"samples": 200, "temperature": 0.9}
    whole = sampled(backbone, PROMPTS[:1], **settings)
    found = sampled(backbone, PROMPTS[:1], **settings, top_k=top_k, top_p=top_p)
    ranks, shares = ranks_and_shares(backbone, found, 0.9)
    assert (ranks < (top_k or len(backbone.tokenizer))).all()
    assert (shares < top_p).all()
    assert ranks.max() > 0  # and not always the most likely token
    if top_k == 2000:
        assert torch.equal(found.ids, whole.ids)  # the vocabulary is smaller
    else:
        ranks, shares = ranks_and_shares(backbone, whole, 0.9)
        assert (ranks >= top_k).any() if top_k else (shares >= top_p).any()


def test_truncated_sampling_draws_the_kept_tokens_in_proportion(backbone):
    found = sampled(
        backbone, ("12+34=",), samples=20_000, max_response_length=1, top_k=5, top_p=0.9
    )
    every = log_probs_along(backbone, "12+34=", torch.zeros(1, 1, dtype=torch.long), 0.9)[0, 0]
    kept, places = every.exp().topk(5)
    kept = kept / kept.sum()  # top_p applies to the tokens that top_k keeps
    kept = kept[kept.cumsum(0) - kept < 0.9]
    expected = torch.zeros(len(every)).index_add(0, places[: len(kept)], kept / kept.sum())
    shares = torch.bincount(found.ids[:, 0], minlength=len(every)) / len(found.ids)
    assert torch.equal(shares > 0, expected > 0)
    # four standard deviations of a share
    assert ((shares - expected).abs() <= 4 * (expected / 20_000).sqrt()).all()


def test_log_probs_are_among_all_tokens_despite_truncation(backbone):
    found = sampled(backbone, top_k=3, top_p=0.7)
    ids, mask = (each.repeat_interleave(4, 0) for each in encoded(backbone))
    computed = response_log_probs(backbone.model, ids, mask, found.ids, found.mask, 0.9)
    torch.testing.assert_close(computed, found.log_prob, atol=1e-5, rtol=0)


def test_top_k_1_chooses_the_most_likely_token(backbone):
    greedy = sampled(backbone, temperature=0.0)
    assert torch.equal(sampled(backbone, temperature=1.5, top_k=1, seed=3).ids, greedy.ids)


def test_top_k_1_chooses_one_token_even_among_ties():
    undecided = tiny_backbone(hidden_size=32, num_layers=1)
    with torch.no_grad():
        undecided.model.get_input_embeddings().weight.zero_()
    assert (sampled(undecided, samples=64, max_response_length=1, top_k=1).ids == 0).all()


def test_responses_without_an_end_token_are_cut_off(backbone):
    end = backbone.tokenizer.eos_token_id
    found = sampled(backbone, samples=64, max_response_length=10, temperature=1.5)
    last = found.ids.gather(-1, found.mask.sum(-1, keepdim=True) - 1).squeeze(-1)
    assert torch.equal(found.is_cut_off, last != end)
    assert 0 < found.is_cut_off.float().mean() < 1
    assert (found.mask.sum(-1)[found.is_cut_off] == 10).all()
    # some end exactly at the maximum length
    assert (~found.is_cut_off & (found.mask.sum(-1) == 10)).any()


def test_batched_log_probs_and_gradients_equal_those_of_single_responses(backbone):
    """Batched, prompts are processed once; alone, prompt and response share one forward pass."""
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


def test_log_probs_process_a_prompt_once_for_all_its_responses(backbone):
    found = sampled(backbone, samples=4, max_response_length=3)
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
