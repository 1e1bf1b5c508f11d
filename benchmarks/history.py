"""Measure the speed of the Training History pages with many runs.

    python benchmarks/history.py            1,000 runs, about a minute
    python benchmarks/history.py --runs 5000

Writes the records of the runs without training. Prints the figures with their targets and writes
them to benchmarks/results/history.json, with machine and versions. "Cold" means without an index of
the runs; "nothing changed" means that all files have been read before. The files are in the
operating system's cache in both cases. In the browser (Debian's chromium, headless), the time is
from the request until the table has its first row: for the first page of a new server in a browser
without cache, and for later pages. The time with an empty list is Streamlit's share. All figures
are medians of five.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import ROOT, write_report

sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "tests" / "ui"))

from made_history import make_run, run_specs
from serving import Reader, browsing, reading, serving

from heteromark.runs.store import RunStore
from heteromark.ui.data.configs import configs_of
from heteromark.ui.data.history import History
from heteromark.ui.data.listing import ordered, table_of

VERSIONED = ("streamlit", "altair", "pandas", "pydantic", "playwright")
REPETITIONS = 5
FIRST_ROW = '[data-testid="stDataFrame"] tbody tr'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    number = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        store, results = RunStore(Path(folder) / "store"), Path(folder) / "results"
        for spec in run_specs(number):
            make_run(store, spec)
        figures = measure_looks(store, results)
        none = RunStore(Path(folder) / "none")
        figures |= measure_browser(none, results, "empty list", "text=Nothing has been trained")
        figures |= measure_browser(store, results, "list of all runs", FIRST_ROW)
    for name, (seconds, target) in figures.items():
        print(f"{name:<48} {seconds:8.3f} s   target {target:g} s")
    measured = {
        "runs": number,
        "seconds": {name: round(seconds, 4) for name, (seconds, _) in figures.items()},
        "targets": {name: target for name, (_, target) in figures.items()},
    }
    write_report("history", "benchmarks/history.py", VERSIONED, measured)


def measure_looks(store: RunStore, results: Path) -> dict[str, tuple[float, float]]:
    """Measure finding the runs, without a page."""
    known = History(store, results)
    runs = known.runs()
    assert runs, "no runs were made"
    return {
        "index of all runs, cold": (median(lambda: History(store, results).runs()), 2),
        "index of all runs, nothing changed": (median(known.runs), 0.2),
        "table of all runs, ordered": (
            median(lambda: table_of(ordered(runs, "evaluation return"))),
            0.2,
        ),
        "configs of all runs": (median(lambda: configs_of(runs)), 0.2),
    }


def measure_browser(
    store: RunStore, results: Path, name: str, sign: str
) -> dict[str, tuple[float, float]]:
    """Measure opening the list, until `sign` is on the page."""
    first = []
    with browsing() as browser:
        for _ in range(REPETITIONS):
            with serving(store.root, results) as address, reading(browser, address) as reader:
                open_list = functools.partial(open_until, reader, sign)
                first.append(seconds(open_list))
                later = [seconds(open_list) for _ in range(REPETITIONS)]
    return {
        f"{name} in the browser, first page": (statistics.median(first), 5),
        f"{name} in the browser, later": (statistics.median(later), 2),
    }


def open_until(reader: Reader, sign: str) -> None:
    reader.page.goto(f"{reader.address}/training")
    reader.page.locator(sign).first.wait_for(state="attached")


def median(work: Callable[[], object]) -> float:
    """Return the median wall-clock time in seconds."""
    return statistics.median(seconds(work) for _ in range(REPETITIONS))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
