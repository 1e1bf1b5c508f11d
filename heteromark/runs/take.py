"""Copy a finished run from the run store to a folder, without loading any config.

    python -m heteromark.runs.take DIGEST FOLDER

Exits with 1 if the store does not have the run. For rules of the workflow, most of whose runs are
in the store: a process that resolves the run's config takes three times as long.
"""

from __future__ import annotations

import sys
from pathlib import Path

from heteromark.runs.store import RunStore


def main(digest: str, folder: str) -> None:
    """Copy the run, or exit."""
    store = RunStore()
    if store.lookup(digest) is None:
        sys.exit(1)
    store.materialise(digest, Path(folder))
    print(f"{digest} was found in the run store")


if __name__ == "__main__":
    main(*sys.argv[1:])
