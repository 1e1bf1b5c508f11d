"""Independent random streams from one seed."""

from __future__ import annotations

import zlib

import numpy as np


def stream_seed(seed: int, *stream: int | str) -> int:
    """A 32-bit seed for one named random stream, independent of all others.

    Args:
        seed: the run's seed.
        stream: what the stream is for, e.g. `("training", iteration, copy)`.

    Source: numpy.random.SeedSequence, which mixes its words so that nearby ones do not correlate.
    """
    words = [zlib.crc32(word.encode()) if isinstance(word, str) else word for word in stream]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0])
