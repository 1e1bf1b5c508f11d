"""Derive independent random streams from one seed."""

from __future__ import annotations

import zlib

import numpy as np


def stream_seed(seed: int, *stream: int | str) -> int:
    """Return a 32-bit seed for a named random stream, independent of all other streams.

    Args:
        seed: the run's seed.
        stream: the purpose of the stream, e.g. `("training", iteration, copy)`.

    Source: numpy.random.SeedSequence, whose mixing decorrelates similar inputs.
    """
    words = [zlib.crc32(word.encode()) if isinstance(word, str) else word for word in stream]
    return int(np.random.SeedSequence([seed, *words]).generate_state(1)[0])
