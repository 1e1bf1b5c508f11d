"""Counter-based random numbers: no generator, so each battle has a separate stream.

A number is a hash of integers that identify it, such as (seed of the copy, episode, purpose, unit).
It does not depend on the batch size or the device.
Source of the hash: C. Wellons, "Prospecting for hash functions" (lowbias32).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
# absolute values below 2**31, so that their product with a word fits in an int64; the second one is
# lowbias32's 0x846ca68b modulo 2**32
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B - 2**32
_START = 0x9E3779B9


def hashed(key: Tensor, *words: Tensor | int) -> Tensor:
    """Return a 32-bit hash of words from 0 to 2**32 - 1, as int64 with their broadcast shape."""
    value: Any = _START  # an int until `key` is mixed in, then a tensor
    for word in (key, *words):
        mixed = (value ^ word) + _START & _WORD
        mixed = (mixed ^ (mixed >> 16)) * _FIRST & _WORD
        mixed = (mixed ^ (mixed >> 15)) * _SECOND & _WORD
        value = mixed ^ (mixed >> 16)
    return value


def uniform(key: Tensor, *words: Tensor | int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the uniform random number in [0, 1) for these words, a multiple of 2**-24."""
    return (hashed(key, *words) >> 8).to(dtype) * 2.0**-24
