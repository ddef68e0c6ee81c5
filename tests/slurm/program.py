"""What stands for training in these tests: `python program.py job.json`. Counts steps, saves on a signal, resumes.

job.json: steps, seconds (a step; none once it resumed), folder, out, and at will: fail {step, times, message, kind},
deaf (ignores signals), before (the out of the job before, which must be there). `out` ends as {"steps", "starts": [step
of each start]}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from pretrain_exp.store.states import write_json


def main(path: str) -> int:
    job = json.loads(Path(path).read_text())
    folder, out = Path(job["folder"]), Path(job["out"])
    signalled = []
    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, lambda number, frame: signalled.append(number))
    saved = folder / "saved.json"
    state = json.loads(saved.read_text()) if saved.is_file() else {"steps": 0, "starts": [], "failed": 0}
    if job.get("before") and not Path(job["before"]).is_file():
        raise FileNotFoundError(job["before"])
    seconds = 0 if state["steps"] else job["seconds"]  # long enough to be stopped, and over soon after
    state["starts"].append(state["steps"])
    (folder / "pid").write_text(str(os.getpid()))
    while state["steps"] < job["steps"]:
        if signalled and not job.get("deaf"):
            write_json(saved, state)
            return 75
        fail = job.get("fail")
        if fail and state["steps"] == fail["step"] and state["failed"] < fail["times"]:
            state["failed"] += 1
            write_json(saved, state)
            write_json(folder / "error.json", {"kind": fail["kind"], "message": fail["message"], "step": fail["step"]})
            return 1
        time.sleep(seconds)
        state["steps"] += 1
        with open(folder / "metrics.jsonl", "a") as live:
            live.write(json.dumps({"step": state["steps"] - 1}) + "\n")
        if job.get("save_every") and state["steps"] % job["save_every"] == 0:
            write_json(saved, state)
    write_json(out, {**state, "environment": dict(os.environ)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
