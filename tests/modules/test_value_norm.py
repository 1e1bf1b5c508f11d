"""PreciseValueNorm: correct far from zero, and saved with all of its state."""

from __future__ import annotations

import io

import pytest
import torch

from heteromark.modules.value_norm import PreciseValueNorm


@pytest.mark.parametrize("mean", [0.0, 300.0, 1e5])
def test_the_scale_of_targets_far_from_zero_is_correct(mean):
    torch.manual_seed(0)
    norm = PreciseValueNorm()
    seen = []
    for _ in range(200):
        seen.append(torch.randn(64, 1) + mean)
        norm.update(seen[-1])
    assert float(norm.scale()) == pytest.approx(float(torch.cat(seen).double().std()), rel=1e-3)
    targets = seen[-1]
    normal = norm.normalize(targets)
    assert normal.dtype == torch.float32
    assert normal.abs().max() < 5
    torch.testing.assert_close(norm.denormalize(normal), targets)


def test_before_the_first_update_values_are_near_zero():
    norm = PreciseValueNorm()
    assert (norm.denormalize(torch.randn(9, 1)).abs() < 0.02).all()


def test_the_whole_state_is_registered():
    norm = PreciseValueNorm()
    norm.update(torch.tensor([[1.0], [5.0]]))
    assert set(norm.state_dict()) == {"running_mean", "running_mean_sq", "debiasing_term"}
    file = io.BytesIO()
    torch.save(norm.state_dict(), file)
    file.seek(0)
    again = PreciseValueNorm()
    again.load_state_dict(torch.load(file, weights_only=True))
    targets = torch.randn(9, 1)
    assert (again.normalize(targets) == norm.normalize(targets)).all()
    norm.update(targets)
    again.update(targets)
    assert (again.normalize(targets) == norm.normalize(targets)).all()
