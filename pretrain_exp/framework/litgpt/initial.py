"""Where a run begins: the architecture and the initial weights, as one file of litgpt that all ranks load.

    model.config      --GPT, litgpt's initialisation, init seed--+
    litgpt folder     ---------- its own lit_model.pth ----------+--> lit_model.pth --> every rank
    Hugging Face      --litgpt's converter, held by the probe----+

Made on the CPU by the first rank, so the weights depend on no strategy, device or number of ranks.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import litgpt.config
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from litgpt import GPT, Config
from litgpt.pretrain import initialize_weights

from pretrain_exp.errors import UserError
from pretrain_exp.framework.litgpt.architecture import TIE, build
from pretrain_exp.framework.litgpt.families import Family, family_of, from_transformers
from pretrain_exp.framework.litgpt.weights import PICKLED, SAFETENSORS, from_hf_folder
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.probe import TOLERANCE, log_probabilities, probe_tokens
from pretrain_exp.framework.worker.ranks import Ranks

WEIGHTS = "lit_model.pth"
BESIDE = ["*.json", "*.model", "*.txt"]  # of a repository of the hub, beside its weights


@dataclass(frozen=True)
class Initial:
    """config: of litgpt. tied: whether one matrix embeds and predicts. source: a folder; None: from scratch."""

    job: Job
    ranks: Ranks
    config: Config
    tied: bool
    source: Path | None
    family: Family

    @contextmanager
    def file(self) -> Iterator[Path]:
        """The file, for as long as it is needed. All ranks call it together."""
        if self.source is not None and (self.source / WEIGHTS).is_file():
            yield self.source / WEIGHTS
            return
        folder = self.job.live / "initial"
        if self.ranks.first:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            torch.save({"model": self._weights()}, folder / "writing.pth")
            os.rename(folder / "writing.pth", folder / WEIGHTS)
        self.ranks.barrier()
        yield folder / WEIGHTS
        self.ranks.barrier()
        if self.ranks.first:
            shutil.rmtree(folder)

    def _weights(self) -> dict[str, torch.Tensor]:
        if self.source is None:
            return scratch(self.config, self.tied, self.job.init_seed).state_dict()
        weights = from_hf_folder(self.family, self.config, self.source)
        self._demand_same_words(weights)
        return weights

    def _demand_same_words(self, weights: dict[str, torch.Tensor]) -> None:
        """UserError where litgpt's model does not say what the one in the folder says."""
        from transformers import AutoModelForCausalLM

        assert self.source is not None
        tokens = probe_tokens(self.config.padded_vocab_size, self.job.phases.sequence_length(self.job.start_step))
        with torch.device("meta"):
            model = GPT(self.config)
        model.to_empty(device="cpu")
        model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
        model.reset_parameters()  # the rotary tables, which no checkpoint holds
        with torch.no_grad():
            ours = log_probabilities(model.eval()(tokens), tokens)
            del model
            hf = AutoModelForCausalLM.from_pretrained(self.source, dtype=torch.float32).eval()
            theirs = log_probabilities(hf(input_ids=tokens, use_cache=False).logits, tokens)
        off = float((torch.tensor(ours) - torch.tensor(theirs)).abs().mean())
        if not off <= TOLERANCE["fp32"]:
            problem = f"litgpt's model is off by {off:.3g} nats a token from the one in the folder"
            raise UserError(problem, key="model.checkpoint", value=str(self.source))


def find_initial(job: Job, ranks: Ranks, state: Path | None) -> Initial:
    """What the job's model section names; with a state to go on from, its architecture is the state's."""
    model = job.model
    if state is not None:
        folder = state / "checkpoint"
        config = Config.from_file(folder / "model_config.yaml")
        return Initial(job, ranks, config, is_tied(folder / WEIGHTS), folder, family_of(config))
    if model.get("config"):
        config = build(litgpt.config, model["config"])
        return Initial(job, ranks, config, bool(model["config"].get(TIE)), None, family_of(config))
    folder = _folder(model["checkpoint"], model.get("revision"), ranks)
    if (folder / "model_config.yaml").is_file():
        config = Config.from_file(folder / "model_config.yaml")
        return Initial(job, ranks, config, is_tied(folder / WEIGHTS), folder, family_of(config))
    values = hf_config(folder)
    family, fields = from_transformers(values, Path(model["checkpoint"]).name)
    return Initial(job, ranks, Config(**fields), bool(values["tie_word_embeddings"]), folder, family)


def scratch(config: Config, tied: bool, seed: int) -> GPT:
    """A model with litgpt's initial weights of this seed, as `litgpt.pretrain.main` draws them."""
    model = GPT(config)
    L.seed_everything(seed, verbose=False)
    fabric = L.Fabric(accelerator="cpu", devices=1, plugins=[LightningEnvironment()])  # whatever Slurm says
    initialize_weights(fabric, model, n_layer=config.n_layer, n_embd=config.n_embd)
    if tied:
        model.transformer.wte.weight = model.lm_head.weight
    return model


def is_tied(path: Path) -> bool:
    """Whether the file's two embeddings are one matrix. Two that were drawn apart never agree."""
    saved = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    weights = saved.get("model", saved)
    return torch.equal(weights["transformer.wte.weight"], weights["lm_head.weight"])


def hf_config(folder: Path) -> dict[str, Any]:
    """config.json with the defaults of its class filled in, under transformers' own names of today."""
    from transformers import AutoConfig

    raw = json.loads((folder / "config.json").read_text())
    values = {**raw, **AutoConfig.from_pretrained(folder).to_dict()}
    if values["model_type"] == "gpt_neox" and "rotary_pct" not in raw:
        # transformers 5.3 fills in its default where the file names it the new way
        values["rotary_pct"] = (raw.get("rope_parameters") or {}).get("partial_rotary_factor", 0.25)
    return values


def _folder(name: str, revision: str | None, ranks: Ranks) -> Path:
    """A folder as it stands, or the hub's, downloaded by the first rank."""
    if Path(name).is_dir():
        return Path(name)
    return Path(ranks.share(download(name, revision) if ranks.first else ""))


def download(name: str, revision: str | None) -> str:
    """The folder of a repository's weights and what lies beside them; pickled weights where there are no others."""
    from huggingface_hub import snapshot_download

    for weights in (SAFETENSORS, PICKLED):
        found = snapshot_download(name, revision=revision, allow_patterns=[*BESIDE, weights])
        if any(Path(found).glob(weights)):
            break
    return found
