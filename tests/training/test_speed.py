"""The speed of training, as a ratio that holds on any machine; measured by benchmarks/limit.py."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from projects import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("task", ["skirmish", "simple_spread"])
def test_training_costs_little_more_than_its_arithmetic_in_plain_torch(task):
    """It takes 1.1 times as much; other work on the machine disturbs some pairs."""
    code = f"import limit; print(limit.measure({task!r}, 5)['ratio'])"
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'benchmarks'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
    assert float(done.stdout) < 1.5
