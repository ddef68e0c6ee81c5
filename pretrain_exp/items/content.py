"""Content hashes: strings in, the id under which an item is planted, scored and analysed out."""

from __future__ import annotations

from hashlib import blake2b


def content_id(*parts: str) -> str:
    """16 hex digits (64 bits of blake2b) of a list of strings; `("ab", "c")` and `("a", "bc")` differ.

    Two of 100,000 distinct items share an id with probability 3e-10.
    """
    digest = blake2b(digest_size=8)
    for part in parts:
        data = part.encode("utf-8")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
