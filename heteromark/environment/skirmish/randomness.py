"""Random numbers that follow from counters: no generator, so each battle has a stream of its own.

A number is a hash of the words that say which one it is, such as (seed of the copy, episode, what
for, unit). So a batch draws what its copies would draw alone, on any device.
Source of the hash: C. Wellons, "Prospecting for hash functions" (lowbias32).
"""

from __future__ import annotations

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
# below 2**31 in size, so that products of them and a word fit in an int64; modulo 2**32 the second
# is lowbias32's 0x846ca68b
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - 2**32
_START = 0x9E3779B9


def hashed(*words: Tensor | int) -> Tensor:
    """A 32-bit hash of words from 0 to 2**32 - 1, as int64 of their broadcast shape."""
    value: Tensor | int = _START
    for word in words:
        mixed = (value ^ word) + _START & _WORD
        mixed = (mixed ^ (mixed >> 16)) * _FIRST & _WORD
        mixed = (mixed ^ (mixed >> 15)) * _SECOND & _WORD
        value = mixed ^ (mixed >> 16)
    return value


def uniform(*words: Tensor | int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A number from 0 to just below 1, in steps of 2**-24, for these words."""
    return (hashed(*words) >> 8).to(dtype) * 2.0**-24
