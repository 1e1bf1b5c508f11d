"""What a run sets for its own computations, and only for those."""

import torch
from engine_config import make_config

from heteromark.training.device import arithmetic_of


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


def test_a_run_on_a_gpu_after_one_on_the_cpu_may_use_operations_without_an_order():
    with arithmetic_of(make_config(), "cpu"), arithmetic_of(make_config(), "cuda"):
        assert not torch.are_deterministic_algorithms_enabled()
