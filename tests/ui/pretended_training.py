"""Simulate a training: hold the lock of a run and write its rows. `python FILE DIGEST SECONDS`"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from heteromark.runs.record import METRICS_FILE, RunRecord
from heteromark.runs.store import RunStore


def main(digest: str, seconds: float) -> None:
    """Append the rows of rows.csv to metrics.csv one by one, then wait to be killed."""
    with RunStore().writing(digest) as folder:
        RunRecord.read(folder).write(folder)
        rows = (folder / "rows.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        with Path(folder / METRICS_FILE).open("w", encoding="utf-8") as metrics:
            metrics.write(rows[0])
            for row in rows[1:]:
                metrics.write(row)
                metrics.flush()
                print(row.partition(",")[0], flush=True)
                time.sleep(seconds)
        time.sleep(600)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
