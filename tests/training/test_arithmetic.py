"""A run's arithmetic settings apply only while it computes."""

import torch
from engine_config import make_config

from heteromark.training.device import arithmetic_of


def settings():
    return (
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


def test_arithmetic_settings_apply_to_the_run_only():
    before = settings()
    config = make_config(training__num_threads=2, training__matmul_precision="medium")
    with arithmetic_of(config, "cpu"):
        assert settings() == (2, "medium", True, False)
    assert settings() == before


def test_deterministic_algorithms_are_off_on_a_gpu_also_after_a_cpu_run():
    with arithmetic_of(make_config(), "cpu"), arithmetic_of(make_config(), "cuda"):
        assert not torch.are_deterministic_algorithms_enabled()
