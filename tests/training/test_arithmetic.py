"""What a run sets for its own computations, and only for those."""

import torch
from engine_config import make_config

from heteromark.training.arithmetic import arithmetic_of


def settings():
    return (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def test_a_run_computes_on_its_threads_and_afterwards_all_is_as_before():
    before = settings()
    with arithmetic_of(make_config(training__num_threads=2), "cpu"):
        assert settings() == (2, True, False)
    assert settings() == before


def test_on_a_gpu_operations_without_an_order_of_their_own_stay_allowed():
    exact = torch.are_deterministic_algorithms_enabled()
    with arithmetic_of(make_config(), "cuda"):
        assert torch.are_deterministic_algorithms_enabled() == exact
