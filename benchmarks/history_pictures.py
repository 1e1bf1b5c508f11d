"""Take the screenshots in docs/history.png: the list of runs and a comparison.

    python benchmarks/history_pictures.py

The runs are synthetic (tests/ui/made_history.py); a process pretends to train one of them. Needs
Debian's chromium.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from common import ROOT
from PIL import Image

sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "tests" / "ui"))

from made_history import Made, agent, make_run, many, run_config
from made_sweep import make_sweep
from serving import Reader, browsing, reading, serving

from heteromark.runs.record import METRICS_FILE, Status
from heteromark.runs.store import STORE_VARIABLE, RunStore
from heteromark.ui.data.history import History

TARGET = ROOT / "docs" / "history.png"
WIDTH = 1440
LIST_HEIGHT, COMPARISON_HEIGHT = 560, 800
GAP, GAP_COLOUR = 10, "#D9DEE5"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, results = RunStore(Path(folder) / "store"), Path(folder) / "results"
        for made in many(60):
            make_run(store, made)
        make_sweep(store, results)
        configs = dict.fromkeys(
            run.config_digest
            for run in History(store, results).runs()
            if run.copies and run.record.mode == "smoke"
        )
        query = "&".join(f"config={digest}" for digest in configs)
        os.environ.update({STORE_VARIABLE: str(store.root), "TZ": "UTC"})
        training = pretend_to_train(store)
        try:
            with (
                serving(store.root, results) as address,
                browsing() as browser,
                reading(browser, address) as reader,
            ):
                parts = [
                    picture(reader, "/training", LIST_HEIGHT),
                    picture(reader, f"/compare?{query}", COMPARISON_HEIGHT),
                ]
        finally:
            training.kill()
            training.wait()
    whole = Image.new("RGB", (WIDTH, sum(part.height + GAP for part in parts) - GAP), GAP_COLOUR)
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height + GAP
    whole.quantize().save(TARGET, optimize=True)
    print(f"{TARGET}: {TARGET.stat().st_size / 1000:.0f} kB")


def pretend_to_train(store: RunStore) -> subprocess.Popen:
    """Start a process that holds the lock of a run and pretends to train it."""
    config = run_config(agent("happo_agent_v1"), mode="full", seed=1)
    folder = make_run(store, Made(config, started=datetime.now(UTC), status=Status.RUNNING))
    (folder / METRICS_FILE).rename(folder / "rows.csv")
    script = ROOT / "tests" / "ui" / "pretended_training.py"
    process = subprocess.Popen(
        [sys.executable, str(script), folder.name, "0.1"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def picture(reader: Reader, path: str, height: int) -> Image.Image:
    """Take a screenshot of a fully loaded page."""
    reader.page.set_viewport_size({"width": WIDTH, "height": height})
    reader.open(path)
    reader.rows()
    reader.page.wait_for_timeout(2000)
    return Image.open(BytesIO(reader.page.screenshot())).convert("RGB")


if __name__ == "__main__":
    main()
