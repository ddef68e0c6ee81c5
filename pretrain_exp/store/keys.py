"""Keys: a state is named by what led to it, and by nothing else.

    key(t) = H(facts of the run, t, digest of the plan's operations before t)

The facts are initial state, framework and the version of its semantics, model, tokenizer, sequence and batch shape,
precision, optimizer, the schedule of the whole run, data order and the seeds that matter. Paths, names, cluster
options, micro-batches, world size and how often was saved are not among them, so runs that agree up to a step share
the state at that step.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

SCHEMA = 1


def canonical(value: Any) -> str:
    """JSON with sorted keys and no spaces; floats as Python prints them (shortest exact form). NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any, length: int = 20) -> str:
    """`length` hexadecimal digits of the BLAKE2b of the canonical JSON of `value`."""
    return hashlib.blake2b(canonical(value).encode(), digest_size=32).hexdigest()[:length]


def base_key(facts: dict[str, Any]) -> str:
    """The name of all that a run's states have in common."""
    return digest({"schema": SCHEMA, "facts": facts})


def state_key(base: str, step: int, plan_prefix: str) -> str:
    """The key of the state after `step` updates, when `plan_prefix` is the digest of the operations read before it."""
    return digest({"base": base, "step": step, "plan": plan_prefix})
