"""The process that plans a slice of a closed loop: `python -m pretrain_exp.control.plan_slice job.json`.

    job.json --> is the slice planned?  no: state --as_hf--> probes --> controllers --> layer on top of the plan so far
                                        --> loops/<loop>/step<b>.json --> older plans released
             --> overlay of the slice --> aliases linked --> resolved.json

job.json is that of a training job, with `loop` in it and aliases for states to come; resolved.json is what a worker
reads. role `treated` plans a slice, `placebo` follows the slices of the treated arm when all of them are planned,
`end` only looks: the probes of the last state. Whatever is recorded already is taken, never made again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pretrain_exp.control import loop as loops
from pretrain_exp.control.launch import RESOLVED
from pretrain_exp.control.look import Looked, look
from pretrain_exp.control.loop import Loop
from pretrain_exp.data.order import order_from_json
from pretrain_exp.data.phases import Phases
from pretrain_exp.data.tokenizer import load
from pretrain_exp.errors import Problems, UserError
from pretrain_exp.insertion.base import InsertionContext
from pretrain_exp.insertion.dynamic_control import DynamicControl
from pretrain_exp.kinds import check_kind
from pretrain_exp.plan.compile import compile_plan
from pretrain_exp.plan.edits import Window
from pretrain_exp.plan.folder import Plan, refuse_failed_audit
from pretrain_exp.plan.overlay_writer import write_window
from pretrain_exp.plan.placebo import check_placebo_room, placebo_plan
from pretrain_exp.store.claims import claimed
from pretrain_exp.store.keys import digest, state_key
from pretrain_exp.store.states import state_dir, write_json


def main(path: Path) -> int:
    """The exit status: 0 where the job is resolved, 2 where it is the user's to mend."""
    values = json.loads(path.read_text())
    try:
        slice_ = Slice(values)
        if slice_.role == "end":
            slice_.look_at_the_end()
        else:
            plan = slice_.placebo() if slice_.role == "placebo" else slice_.plan()
            write_resolved(values, plan, slice_.overlay(plan), path)
    except (UserError, Problems) as error:
        error_path = Path(values["live"]) / "error.json"
        write_json(error_path, {"kind": "user", "message": error.render(), "step": values["start"]["step"]})
        print(error.render(), file=sys.stderr)
        return 2
    return 0


@dataclass(frozen=True)
class Slice:
    """The slice that a job trains, or the end of the loop. values: job.json."""

    values: Mapping[str, Any]

    @property
    def role(self) -> str:
        return str(self.values["loop"]["role"])

    @property
    def store(self) -> Path:
        return Path(self.values["store"])

    @cached_property
    def loop(self) -> Loop:
        return Loop.from_json(self.values["loop"])

    @cached_property
    def phases(self) -> Phases:
        return Phases.from_json(self.values["phases"])

    @property
    def step(self) -> int:
        """Where the job starts."""
        return int(self.values["start"]["step"])

    @property
    def static(self) -> Plan:
        """What is planned beside the loop, and before it."""
        return Plan.open(self.values["loop"]["plan"])

    @cached_property
    def insertions(self) -> dict[str, DynamicControl]:
        """The loops of the run by name. UserError where one is not what it was when the run was planned."""
        nodes, prints = self.values["loop"]["insertions"], self.values["loop"]["prints"]
        kinds = {name: check_kind(nodes[name], f"insertion.{name}") for name in sorted(nodes)}
        for name, kind in kinds.items():
            if digest(kind.fingerprint(self.context(name))) != prints[name]:
                problem = "its texts, its probes or its controller have changed since the run was planned"
                fix = "put the files back, or run the experiment again: it is another loop"
                raise UserError(problem, key=f"insertion.{name}", fix=fix)
        return kinds

    def plan(self) -> Plan:
        """The last plan of the loop, with the slice that the job trains; planned now where it was not before."""
        boundary = self.loop.boundary(self.step)
        path = loops.record_path(self.store, self.loop, boundary)
        record = loops.read(path)
        if record is None:
            with claimed(self.store, f"loop-{self.loop.key}-{boundary}") as claim:
                record = loops.read(path)
                if record is None:
                    record = self._decided()
                    if not claim.held():
                        raise RuntimeError("another process took this slice over while it was planned here")
                    loops.write(path, record)
                    loops.release(self.store, self.loop)
        return self._open(loops.records(self.store, self.loop)[-1])

    def overlay(self, plan: Plan) -> Path:
        """The overlay that the job's workers map: of its own slice alone, which stays; the placebo's as it is."""
        if self.role == "placebo":
            return plan.folder / "overlay"
        begin, end = self.loop.boundary(self.step), self.loop.end(self.step)
        folder = loops.overlay_folder(self.store, self.loop, begin, plan.prefix_digest(end))
        if not folder.is_dir():
            with suppress(FileExistsError):  # another job of the slice was quicker
                write_window(folder, plan.overlay, self.phases.first_slot(begin), self.phases.first_slot(end))
        return folder

    def placebo(self) -> Plan:
        """The placebo of the treated arm's plan, all of whose slices are planned."""
        path = loops.placebo_path(self.store, self.loop)
        record = loops.read(path)
        if record is None:
            last = loops.read(loops.record_path(self.store, self.loop, self.loop.boundaries[-1]))
            assert last is not None, "the job comes after those of the treated arm"
            order = order_from_json(self.values["order"])
            made = placebo_plan(self._open(last), order.num_sequences, self.store / "plans")
            record = {"plan": made.fingerprint}
            loops.write(path, record)
        return self._open(record)

    def look_at_the_end(self) -> None:
        """Records what the loop came to."""
        path = loops.record_path(self.store, self.loop, self.step)
        if loops.read(path) is None:
            looked = self._look()
            last = loops.read(loops.record_path(self.store, self.loop, self.loop.boundaries[-1]))
            assert last is not None, "the job comes after those that train"
            seen = {name: looked.seen(name, insertion) for name, insertion in self.insertions.items()}
            loops.drop_plans(self.store, self.loop)
            state = Path(self.values["start"]["state"]).resolve().name
            loops.write(path, {"step": self.step, "state": state, "plan": last["plan"], "insertions": seen})

    def _open(self, record: Mapping[str, Any]) -> Plan:
        return Plan.open(loops.plan_folder(self.store, self.loop, record["plan"]))

    def _decided(self) -> dict[str, Any]:
        """Probes the model, asks the controllers, compiles the layer; the record of the slice."""
        before = self._before()
        below = self.static if before is None else self._open(before)
        said = {} if before is None else before["insertions"]
        looked = self._look(said)
        end = self.loop.end(self.step)
        span = (self.phases.position_of_step(self.step), self.phases.position_of_step(end))
        edits, seen = [], {}
        for name, insertion in self.insertions.items():
            place = int(said.get(name, {}).get("next", 0))
            decision = looked.decisions[name]
            made, following = insertion.slice_edits(self.context(name), decision, place, span)
            edits.append(made)
            planted = {"texts": insertion.asked(decision), "copies": len(made), "tokens": made.num_tokens}
            seen[name] = looked.seen(name, insertion) | planted | {"next": following, "state": dict(decision.state)}
        window = Window(self.loop.first_step, self.loop.last_step)
        root = loops.plan_root(self.store, self.loop, end)
        order = order_from_json(self.values["order"])
        plan = compile_plan(edits, self.phases, window, self._seed, "treated", root, below=below, order=order)
        refuse_failed_audit(plan)
        if self.values["loop"].get("placebo"):  # rather before this slice is trained than when all of them are
            check_placebo_room(plan, order.num_sequences)
        state = Path(self.values["start"]["state"]).resolve().name
        return {"step": self.step, "state": state, "plan": plan.fingerprint, "insertions": seen}

    def _before(self) -> dict[str, Any] | None:
        """The record of the slice before; None where the loop begins. UserError where a job starts amid a slice."""
        if self.step == self.loop.first_step:
            return None
        before = loops.read(loops.record_path(self.store, self.loop, self.loop.boundary(self.step - 1)))
        if before is None or self.step not in self.loop.boundaries:
            problem = f"the slice that begins at step {self.loop.boundary(self.step)} was never planned"
            raise UserError(problem, key="insertion", fix="run the experiment again with its loop")
        return before

    def _look(self, said: Mapping[str, Any] | None = None) -> Looked:
        settings = self.values["loop"]
        framework, device, dtype = check_kind(settings["framework"], "framework"), settings["device"], settings["dtype"]
        state = Path(self.values["start"]["state"]).resolve()
        states = None if said is None else {name: said.get(name, {}).get("state", {}) for name in self.insertions}
        contexts = {name: self.context(name) for name in self.insertions}
        live = Path(self.values["live"])
        return look(framework, state, contexts, self.insertions, states, self.loop, device, dtype, live)

    @property
    def _seed(self) -> int:
        return int(self.values["loop"]["seed"])

    def context(self, name: str) -> InsertionContext:
        """What an insertion may know of the run."""
        tokenizer = load(Path(self.values["tokenizer"]))
        return InsertionContext(
            name=name,
            seed=self._seed,
            sequence_length=self.values["training"]["sequence_length"],
            eos_token_id=self.values["eos_token_id"],
            window=Window(self.loop.first_step, self.loop.last_step),
            phases=self.phases,
            encode=tokenizer.encode,
            vocab_size=tokenizer.vocab_size,
            order=order_from_json(self.values["order"]),
            cache=self.store / "data" / "scans",
        )


def write_resolved(values: Mapping[str, Any], plan: Plan, overlay: Path, path: Path) -> None:
    """Writes the job that a worker reads, beside job.json, and lets the aliases of its states stand for them."""
    store, start = Path(values["store"]), values["start"]
    real = {save["key"]: key_of(save, plan) for save in values["save"]}
    if start["state"] is not None:
        name = Path(start["state"]).name
        real[name] = loops.known(store, name)
        start = {**start, "state": str(state_dir(store, real[name]))}
    for alias in (save["key"] for save in values["save"]):
        loops.link(store, alias, real[alias])
    saves = []
    for save in values["save"]:
        parent = save["record"]["parent"]
        saves.append({**save, "key": real[save["key"]], "record": {**save["record"], "parent": real.get(parent)}})
    job = {name: value for name, value in values.items() if name != "loop"}
    resolved = {**job, "start": start, "save": saves, "overlay": str(overlay.absolute())}
    write_json(path.with_name(RESOLVED), resolved)


def key_of(save: Mapping[str, Any], plan: Plan) -> str:
    """The key of a state, now that the plan before it is known."""
    return state_key(save["record"]["base"], save["step"], plan.prefix_digest(save["step"]))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
