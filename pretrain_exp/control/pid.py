"""PID: proportional, integral, derivative (Astrom and Hagglund 1995, "PID Controllers", chapter 3).

With e(k) = (p(s) - v) / target before segment k, v the mean probability of the targets, p(s) the target after s
updates:

    texts(k) = start + kp e(k) + ki (e(0) + ... + e(k)) + kd (e(k) - e(k-1)),   in [minimum, maximum]

While the number is held at a bound the sum grows no further in that direction (conditional integration), so that the
controller lets go of the bound as soon as the error turns.
"""

from __future__ import annotations

from dataclasses import dataclass

from pretrain_exp.control.base import Decision, Following, Seen


@dataclass(frozen=True, kw_only=True)
class PID(Following):
    """kp, ki, kd: texts for an error as large as the target itself; ki a segment, kd a segment's change."""

    kp: float = 256.0
    ki: float = 64.0
    kd: float = 0.0
    minimum: int = 0

    def decide(self, seen: Seen) -> Decision:
        assert seen.value is not None, "a controller that needs probes is given some"
        target = self.target_at(seen.step, seen.total)
        error = (target - seen.value) / self.target
        before, total = float(seen.state.get("error", error)), float(seen.state.get("sum", 0.0))
        asked = self.start + self.kp * error + self.ki * (total + error) + self.kd * (error - before)
        count = self.clamped(asked)
        winding = (asked > self.maximum and error > 0) or (asked < self.minimum and error < 0)
        total = total if winding else total + error
        return Decision({"error": error, "sum": total}, count=count, target=target, numbers={"error": error})
