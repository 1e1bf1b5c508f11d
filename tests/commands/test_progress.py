"""Progress lines in the log of a run."""

from __future__ import annotations

import io
import logging
import math

import pytest
from engine_config import make_config

from heteromark.commands import progress


@pytest.fixture
def log_lines(monkeypatch, caplog):
    """Return a function that reports rows without a terminal, and returns the logged lines."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    caplog.set_level(logging.INFO, "heteromark")

    def report(*rows):
        with progress.progress_of(make_config()) as show:
            for i, row in enumerate(rows):
                show(64 * (i + 1), 256, {"frames_per_second": 1234.5, **row})
        return [record.getMessage() for record in caplog.records]

    return report


def test_a_line_shows_progress_and_return(log_lines):
    (line,) = log_lines({"episode_return": -3.14159})
    assert line == "test_v1 seed 0: 64/256 frames (25 %), return -3.14, 1,234 frames/s"


def test_missing_figures_keep_their_last_value(log_lines):
    before, evaluated, after = log_lines(
        {"episode_return": math.nan, "evaluation_return": math.nan},
        {"episode_return": 1.0, "evaluation_return": 2.0},
        {"episode_return": math.nan, "evaluation_return": math.nan},
    )
    assert "return -, " in before
    assert "return 1.00, evaluation 2.00," in evaluated
    assert "return 1.00, evaluation 2.00," in after
