"""What the orchestrator reads of the installed litgpt, without importing it: config.py alone, which imports YAML only.

So names of models, fields of a Config and litgpt's own checks are those of the version that will train.
"""

from __future__ import annotations

import importlib.util
import subprocess
from functools import lru_cache
from pathlib import Path
from types import ModuleType

_WHERE = "import importlib.util as u; s = u.find_spec('litgpt'); print(s.submodule_search_locations[0] if s else '')"


@lru_cache(maxsize=8)
def config_module(python: str) -> ModuleType | None:
    """litgpt/config.py of this interpreter's litgpt, loaded here by its path; None where there is no litgpt."""
    try:
        done = subprocess.run([python, "-c", _WHERE], capture_output=True, text=True, check=False)
    except OSError:
        return None
    path = Path(done.stdout.strip()) / "config.py"
    if not done.stdout.strip() or not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location("litgpt_config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
