"""What a log says about a run while it trains."""

from __future__ import annotations

import io
import logging
import math

import pytest
from engine_config import make_config

from heteromark.commands import progress


@pytest.fixture
def told(monkeypatch, caplog):
    """Shows rows one after the other without a terminal; returns the lines."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    caplog.set_level(logging.INFO, "heteromark")

    def tell(*rows):
        with progress.progress_of(make_config()) as show:
            for i, row in enumerate(rows):
                show(64 * (i + 1), 256, {"frames_per_second": 1234.5, **row})
        return [record.getMessage() for record in caplog.records]

    return tell


def test_a_line_tells_how_far_and_how_well(told):
    (line,) = told({"episode_return": -3.14159})
    assert line == "test_v1 seed 0: 64/256 frames (25 %), return -3.14, 1,234 frames/s"


def test_what_was_not_measured_now_is_told_as_it_was(told):
    before, evaluated, after = told(
        {"episode_return": math.nan, "evaluation_return": math.nan},
        {"episode_return": 1.0, "evaluation_return": 2.0},
        {"episode_return": math.nan, "evaluation_return": math.nan},
    )
    assert "return -, " in before
    assert "return 1.00, in evaluation 2.00," in evaluated
    assert "return 1.00, in evaluation 2.00," in after
