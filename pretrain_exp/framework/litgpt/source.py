"""What the orchestrator reads of the installed litgpt, without importing it: config.py alone, which imports YAML only.

So names of models, fields of a Config and litgpt's own checks are those of the version that will train.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from types import ModuleType

from pretrain_exp.framework.installed import location


@lru_cache(maxsize=8)
def config_module(python: str) -> ModuleType | None:
    """litgpt/config.py of this interpreter's litgpt, loaded here by its path; None where there is no litgpt."""
    folder = location(python, "litgpt")
    path = None if folder is None else folder / "config.py"
    if path is None or not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location("litgpt_config", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
