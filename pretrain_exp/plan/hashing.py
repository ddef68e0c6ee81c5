"""Counter-based random numbers: names and counters in, 64-bit words out; no stream, no state, no order of drawing.

A text key (seed, insertion, item, purpose) becomes a 64-bit word by blake2b. Counters (copy, attempt) are then mixed
in, vectorised, with the finalizer of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators"; constants of Stafford's mix 13). So what one edit draws depends on nothing but its own names.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

_STEP = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: successive counters lie far apart
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S1, _S2, _S3 = np.uint64(30), np.uint64(27), np.uint64(31)


def key64(*parts: str | int) -> int:
    """64 bits of blake2b over the parts; each is preceded by its type and length, so no two lists run together."""
    digest = blake2b(digest_size=8)
    for part in parts:
        data = str(part).encode("utf-8")
        digest.update(b"%c%d:" % (b"i" if isinstance(part, int) else b"s", len(data)))
        digest.update(data)
    return int.from_bytes(digest.digest(), "little")


def mix(keys: np.ndarray, counter: np.ndarray | int) -> np.ndarray:
    """New words from words and a counter: uint64 (n,), integers >= 0 (n,) or one for all -> uint64 (n,)."""
    steps = (np.asarray(counter).astype(np.uint64) + np.uint64(1)).reshape(-1) * _STEP
    z = np.atleast_1d(keys) + steps
    z ^= z >> _S1
    z *= _M1
    z ^= z >> _S2
    z *= _M2
    z ^= z >> _S3
    return z
