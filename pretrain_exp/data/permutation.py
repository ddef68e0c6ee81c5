"""A seeded permutation of [0, n), computed and not stored: any element, either way, in microseconds and O(1) memory.

The algorithm is exact; anyone can write it again from these lines. Words have 64 bits: * and + on them wrap at 2^64.

1. Keys. G = 0x9E3779B97F4A7C15, and mix is the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014):
       mix(z):  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
                z = (z ^ (z >> 27)) * 0x94D049BB133111EB
                mix = z ^ (z >> 31)
   With seed and epoch in [0, 2^64):  key = mix(mix(seed + G) + (epoch + 1) * G),  k[i] = mix(key + (i + 1) * G)
   for i in [0, rounds), where rounds = 16 if n < 1024, else 8.
2. Domain. a = isqrt(n - 1) + 1 (the smallest a with a * a >= n) and b = ceil(n / a). So n <= a * b < n + a.
3. Rounds: a Feistel network on Z_a x Z_b ("FE2" in Bellare, Ristenpart, Rogaway, Stegers, SAC 2009), not on words.
       x = left * b + right, with left < a and right < b
       f(k, v):  h = (v ^ k) * 0xFF51AFD7ED558CCD
                 h = (h ^ (h >> 32)) * 0xC4CEB9FE1A85EC53
                 f = h >> 16, a number below 2^48
       for i = 0, 2, 4, ...:  left = (left + f(k[i], right)) mod a;  then  right = (right + f(k[i + 1], left)) mod b
   The result is left * b + right.
4. Cycle walking (Black, Rogaway, CT-RSA 2002): while the result is >= n, it goes through step 3 again.

Step 3 is a bijection of [0, a * b), so step 4 is one of [0, n). As a * b exceeds n by less than a, a value walks with
a probability below about 1 / sqrt(n). The inverse runs the rounds backwards, subtracting. Valid for 1 <= n <= 2^62.
Why 16: after 8 rounds the 120 orders of 5 elements are visibly uneven; after 16 they pass a chi-square test.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import numpy as np

MAX_N = 1 << 62
_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_C1 = 0xFF51AFD7ED558CCD
_C2 = 0xC4CEB9FE1A85EC53
_SMALL = 1024
_Rounds = Callable[[np.ndarray], np.ndarray]


def mix64(z: int) -> int:
    """The finaliser of SplitMix64: a bijection of 64-bit words in which every input bit moves every output bit."""
    z &= _MASK
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MASK
    return z ^ z >> 31


class Permutation:
    """The bijection of [0, n) that belongs to (seed, epoch); `self(x)` is its image, `inverse(y)` the way back."""

    def __init__(self, n: int, seed: int, epoch: int) -> None:
        if not 1 <= n <= MAX_N:
            raise ValueError(f"a permutation needs 1 <= n <= 2**62, got {n}")
        if not (0 <= seed <= _MASK and 0 <= epoch <= _MASK):
            raise ValueError(f"seed and epoch must lie in [0, 2**64), got {seed} and {epoch}")
        self.n = n
        self.a = isqrt(n - 1) + 1
        self.b = -(-n // self.a)
        key = mix64(mix64(seed + _GAMMA) + (epoch + 1) * _GAMMA)
        keys = [mix64(key + (i + 1) * _GAMMA) for i in range(16 if n < _SMALL else 8)]
        self._pairs = list(zip(keys[::2], keys[1::2], strict=True))
        self._reversed = self._pairs[::-1]

    def __call__(self, x: int) -> int:
        """Where x goes; x in [0, n)."""
        a, b, n, pairs, mask, c1, c2 = self.a, self.b, self.n, self._pairs, _MASK, _C1, _C2
        while True:
            left, right = divmod(x, b)
            for k0, k1 in pairs:  # f is written out: a call would double the cost
                h = (right ^ k0) * c1 & mask
                left = (left + (((h ^ h >> 32) * c2 & mask) >> 16)) % a
                h = (left ^ k1) * c1 & mask
                right = (right + (((h ^ h >> 32) * c2 & mask) >> 16)) % b
            x = left * b + right
            if x < n:
                return x

    def inverse(self, y: int) -> int:
        """What goes to y; y in [0, n)."""
        a, b, n, pairs, mask, c1, c2 = self.a, self.b, self.n, self._reversed, _MASK, _C1, _C2
        while True:
            left, right = divmod(y, b)
            for k0, k1 in pairs:
                h = (left ^ k1) * c1 & mask
                right = (right - (((h ^ h >> 32) * c2 & mask) >> 16)) % b
                h = (right ^ k0) * c1 & mask
                left = (left - (((h ^ h >> 32) * c2 & mask) >> 16)) % a
            y = left * b + right
            if y < n:
                return y

    def many(self, xs: np.ndarray) -> np.ndarray:
        """Where each of xs goes: int64 (k,) in [0, n) -> int64 (k,)."""
        return self._walk(xs, self._forward_rounds)

    def inverse_many(self, ys: np.ndarray) -> np.ndarray:
        """What goes to each of ys: int64 (k,) in [0, n) -> int64 (k,)."""
        return self._walk(ys, self._backward_rounds)

    def _walk(self, values: np.ndarray, rounds: _Rounds) -> np.ndarray:
        values = np.asarray(values, dtype=np.int64)
        if values.size and not (values.min() >= 0 and values.max() < self.n):
            raise ValueError(f"values must lie in [0, {self.n}), got [{values.min()}, {values.max()}]")
        out = rounds(values.ravel().astype(np.uint64))
        outside = np.flatnonzero(out >= self.n)
        while outside.size:
            out[outside] = rounds(out[outside])
            outside = outside[out[outside] >= self.n]
        return out.astype(np.int64).reshape(values.shape)

    def _forward_rounds(self, x: np.ndarray) -> np.ndarray:
        a, b = np.uint64(self.a), np.uint64(self.b)
        left, right = np.divmod(x, b)
        for k0, k1 in self._pairs:
            left = (left + _round(k0, right)) % a
            right = (right + _round(k1, left)) % b
        return left * b + right

    def _backward_rounds(self, y: np.ndarray) -> np.ndarray:
        a, b = np.uint64(self.a), np.uint64(self.b)
        left, right = np.divmod(y, b)
        for k0, k1 in self._reversed:
            right = (right + (b - _round(k1, left) % b)) % b  # unsigned words have no negative numbers
            left = (left + (a - _round(k0, right) % a)) % a
        return left * b + right


def _round(key: int, values: np.ndarray) -> np.ndarray:
    h = (values ^ np.uint64(key)) * np.uint64(_C1)  # array arithmetic wraps at 2^64
    return ((h ^ h >> np.uint64(32)) * np.uint64(_C2)) >> np.uint64(16)
