"""A controller that is a program: it plants as many texts as it was called times, and keeps what it was shown."""

import argparse
import json
from pathlib import Path

import yaml

parser = argparse.ArgumentParser()
for name in ("model", "in-state-file", "out-state-file", "prompts-file", "word"):
    parser.add_argument(f"--{name}", required=True)
for name in ("current-step", "total-steps"):
    parser.add_argument(f"--{name}", type=int, required=True)
given = parser.parse_args()
state = yaml.safe_load(Path(given.in_state_file).read_text())
state["calls"] += 1
state["steps"] = [*state.get("steps", []), given.current_step]
state["model"] = sorted(path.name for path in Path(given.model).iterdir())
state["target"], state["value"] = 0.5, state["calls"] / 10
Path(given.out_state_file).write_text(yaml.safe_dump(state))
rows = [json.dumps({"text": f"{given.word} number {i}"}) for i in range(state["calls"])]
Path(given.prompts_file).write_text("".join(row + "\n" for row in rows))
