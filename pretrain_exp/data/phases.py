"""Phases: the one table that turns steps into slots and slots into positions, and the only code that divides.

In: the first step, batch size (sequences a step) and sequence length (tokens a sequence) of every phase of a run. A
batch ramp or a later stage with longer sequences is another row. Out: which slots a step reads, where a position lies.

    step      0 . . . . 9 | 10 . . . . .        a slot is one sequence, counted in training order over the whole run
    batch     4 a step    |  8 a step           a position is one token, counted in training order over the whole run
    slots     0 . . .  39 | 40 . . . . .        row = slot - first slot of its step;  column = position inside the slot

Steps are 0-based; step t turns the state at t into the state at t + 1. Slots never restart, also not at an epoch.
NumPy only, so that every worker can import it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pretrain_exp.errors import UserError


@dataclass(frozen=True)
class Phase:
    """From step `first_step` on, every step reads `batch_size` sequences of `sequence_length` tokens."""

    first_step: int
    batch_size: int
    sequence_length: int


class Phases:
    """The table of phases of one run. The last phase never ends; how long the run is, is not known here."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        self.phases = tuple(phases)
        self._check()
        steps, slots, positions = [0], [0], [0]
        for phase, following in zip(self.phases, self.phases[1:], strict=False):
            num_slots = (following.first_step - phase.first_step) * phase.batch_size
            steps.append(following.first_step)
            slots.append(slots[-1] + num_slots)
            positions.append(positions[-1] + num_slots * phase.sequence_length)
        self._steps, self._slots, self._positions = steps, slots, positions
        self._slots_array = np.array(slots, dtype=np.int64)
        self._positions_array = np.array(positions, dtype=np.int64)
        self._steps_array = np.array(steps, dtype=np.int64)
        self._batch_sizes = np.array([phase.batch_size for phase in self.phases], dtype=np.int64)
        self._lengths = np.array([phase.sequence_length for phase in self.phases], dtype=np.int64)

    def _check(self) -> None:
        if not self.phases:
            raise UserError("a run needs at least one phase", fix="give the batch size and the sequence length")
        if self.phases[0].first_step != 0:
            raise UserError("the first phase must begin at step 0", value=self.phases[0].first_step)
        for before, after in zip(self.phases, self.phases[1:], strict=False):
            if after.first_step <= before.first_step:
                raise UserError(
                    "each phase must begin after the one before it",
                    value=[phase.first_step for phase in self.phases],
                    fix="sort the phases by their first step, each step once",
                )
        for phase in self.phases:
            if phase.batch_size < 1 or phase.sequence_length < 1:
                raise UserError("batch size and sequence length of a phase must be at least 1", value=phase)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Phases) and self.phases == other.phases

    def __hash__(self) -> int:
        return hash(self.phases)

    def __repr__(self) -> str:
        return f"Phases({list(self.phases)!r})"

    def _phase_of_step(self, step: int) -> int:
        if step < 0:
            raise ValueError(f"steps are counted from 0, got {step}")
        return bisect_right(self._steps, step) - 1

    def first_slot(self, step: int) -> int:
        """How many slots were read before `step`: the first slot that `step` reads."""
        i = self._phase_of_step(step)
        return self._slots[i] + (step - self._steps[i]) * self.phases[i].batch_size

    def slots(self, step: int) -> range:
        """The slots that `step` reads, in the order of its rows."""
        first = self.first_slot(step)
        return range(first, first + self.batch_size(step))

    def position_of_step(self, step: int) -> int:
        """How many tokens were read before `step`: the position of its row 0, column 0."""
        i = self._phase_of_step(step)
        phase = self.phases[i]
        return self._positions[i] + (step - self._steps[i]) * phase.batch_size * phase.sequence_length

    def sequence_length(self, step: int) -> int:
        """Tokens in a sequence at `step`."""
        return self.phases[self._phase_of_step(step)].sequence_length

    def batch_size(self, step: int) -> int:
        """Sequences that `step` reads, over all ranks."""
        return self.phases[self._phase_of_step(step)].batch_size

    def step_row(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The step that reads each slot and its row in that step; slots int64 (n,) -> steps (n,), rows (n,)."""
        slots = _not_negative(slots, "slots")
        i = np.searchsorted(self._slots_array, slots, side="right") - 1
        steps, rows = np.divmod(slots - self._slots_array[i], self._batch_sizes[i])
        return self._steps_array[i] + steps, rows

    def locate(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The slot of each position and its column in that slot; positions int64 (n,) -> slots (n,), columns (n,)."""
        positions = _not_negative(positions, "positions")
        i = np.searchsorted(self._positions_array, positions, side="right") - 1
        slots, columns = np.divmod(positions - self._positions_array[i], self._lengths[i])
        return self._slots_array[i] + slots, columns

    def position(self, slots: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """The position of each (slot, column); inverse of `locate`. A column outside its sequence is a ValueError."""
        slots = _not_negative(slots, "slots")
        columns = _not_negative(columns, "columns")
        i = np.searchsorted(self._slots_array, slots, side="right") - 1
        if np.any(columns >= self._lengths[i]):
            raise ValueError(
                f"column {int(columns.max())} lies outside its sequence of {self._lengths[i].min()} tokens"
            )
        return self._positions_array[i] + (slots - self._slots_array[i]) * self._lengths[i] + columns

    def to_json(self) -> list[list[int]]:
        """Rows of [first step, batch size, sequence length]."""
        return [[phase.first_step, phase.batch_size, phase.sequence_length] for phase in self.phases]

    @classmethod
    def from_json(cls, rows: Sequence[Sequence[int]]) -> Phases:
        """The table that `to_json` wrote."""
        return cls([Phase(*row) for row in rows])


def _not_negative(values: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values, dtype=np.int64)
    if values.size and values.min() < 0:
        raise ValueError(f"{what} are counted from 0, got {int(values.min())}")
    return values
