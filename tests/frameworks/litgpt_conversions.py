"""Run by litgpt's Python: every family there and back, as JSON {family: what it gave}. Arguments: a folder to work in.

For each family a model of litgpt with random weights, all of them moved from where initialisation leaves them (norms of
one, biases of zero would hide a mistake), becomes a state; the state a Hugging Face folder; the folder a model again.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from litgpt import GPT, Config
from litgpt.utils import save_config

from pretrain_exp.errors import UserError
from pretrain_exp.framework.litgpt.convert import convert
from pretrain_exp.framework.litgpt.families import LLAMA, family_of, from_transformers
from pretrain_exp.framework.litgpt.initial import download, hf_config
from pretrain_exp.framework.litgpt.weights import from_hf_folder
from pretrain_exp.framework.worker.probe import Probe, log_probabilities, probe_tokens

SIZES: dict[str, Any] = {"block_size": 32, "vocab_size": 100, "n_layer": 2, "n_head": 4, "n_embd": 32}
GROUPED: dict[str, Any] = {**SIZES, **LLAMA, "intermediate_size": 48, "n_query_groups": 2, "norm_eps": 1e-6}
OLMO2 = {"norm_qk": True, "norm_qk_type": "olmo2", "norm_1": False, "norm_2": False, "post_attention_norm": True}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_seq_len": 16}
MODELS: dict[str, dict[str, Any]] = {
    "gpt_neox": {**SIZES, "padding_multiple": 128},
    "gpt_neox, another rotation": {**SIZES, "rotary_percentage": 1.0, "rope_base": 20000, "parallel_residual": False},
    "llama": {**GROUPED, "rope_base": 500000},
    "llama, own head size": {**GROUPED, "head_size": 16},
    "llama 3": {**GROUPED, "rope_adjustments": LLAMA3},
    "llama, tied": GROUPED,
    "qwen2": {**GROUPED, "attn_bias": True},
    "qwen3": {**GROUPED, "norm_qk": True, "head_size": 16},
    "olmo2": {**GROUPED, **OLMO2, "post_mlp_norm": True},
}


def there_and_back(name: str, fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    config = Config(name=name, **fields)
    torch.manual_seed(1)
    model = GPT(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        if "tied" in name:
            model.transformer.wte.weight = model.lm_head.weight
        tokens = probe_tokens(config.padded_vocab_size, 32)
        said = log_probabilities(model(tokens), tokens)
    checkpoint = folder / "state" / "checkpoint"
    checkpoint.mkdir(parents=True)
    torch.save({"model": model.state_dict()}, checkpoint / "lit_model.pth")
    save_config(config, checkpoint)
    (folder / "state" / "job.json").write_text(json.dumps({"eos_token_id": 5}))
    Probe(config.padded_vocab_size, 32, "fp32", said).write(folder / "state" / "probe.json")
    out = convert(folder / "state", folder / "hf")
    family, found = from_transformers(hf_config(out), name)
    back = from_hf_folder(family, Config(**found), out)
    again = GPT(Config(**found)).eval()
    again.load_state_dict(back)
    with torch.no_grad():
        difference = (again(tokens) - model(tokens)).abs().max().item()
    written = json.loads((out / "config.json").read_text())
    same = all(torch.equal(back[key], value) for key, value in model.state_dict().items())
    return {
        "family": family_of(config).model_type,
        "difference": difference,
        "same_weights": same and back.keys() == model.state_dict().keys(),
        "tied": written["tie_word_embeddings"],
        "eos": written["eos_token_id"],
    }


def damaged(folder: Path) -> str:
    """What is said of a state whose weights changed after its probe was taken."""
    path = folder / "state" / "checkpoint" / "lit_model.pth"
    saved = torch.load(path, weights_only=True)
    saved["model"]["transformer.h.0.attn.qkv.weight"][:8] += 1.0
    torch.save(saved, path)
    try:
        convert(folder / "state", folder / "again")
    except UserError as error:
        return error.render() + (" and left a folder" if list(folder.glob("*again*")) else "")
    return "nothing"


def downloaded(there: list[str], root: Path) -> list[str]:
    """What is fetched of a repository that holds these files."""
    root.mkdir()

    def snapshot(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        for file in there:
            if any(Path(file).match(pattern) for pattern in allow_patterns):
                (root / file).touch()
        return str(root)

    with patch("huggingface_hub.snapshot_download", snapshot):
        return sorted(path.name for path in Path(download("me/model", None)).iterdir())


if __name__ == "__main__":
    root = Path(sys.argv[1])
    pickled = ["config.json", "pytorch_model.bin", "training_args.bin"]
    fetched = {"one": downloaded(pickled, root / "one"), "both": downloaded([*pickled, "a.safetensors"], root / "both")}
    results = {name: there_and_back(name, fields, root / name) for name, fields in MODELS.items()}
    print(json.dumps({"models": results, "damaged": damaged(root / "llama"), "fetched": fetched}))
