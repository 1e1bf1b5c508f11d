"""`make histories` runs for hours: it shows a failure when it happens, not at its end."""

from __future__ import annotations

import os
import sys


def pytest_runtest_logreport(report) -> None:
    is_first_to_know = "PYTEST_XDIST_WORKER" not in os.environ
    if report.failed and "HISTORIES" in os.environ and is_first_to_know:
        sys.__stdout__.write(f"\n{report.nodeid}\n{report.longreprtext}\n")
        sys.__stdout__.flush()
