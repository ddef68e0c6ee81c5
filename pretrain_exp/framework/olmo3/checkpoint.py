"""What a checkpoint of this framework holds: OLMo-core's own format, as its trainer writes and its tools read it.

    <folder>/checkpoint/   config.json  .metadata.json  model_and_optim/{.metadata, *.distcp}  train/rankN.pt  hf/

A start from an official checkpoint takes its weights and its optimizer. Where schedule and data go on follows from the
step, as everywhere in this package; what the checkpoint itself says of that must agree.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint.state_dict as dcp_state
from olmo_core.distributed.utils import get_local_tensor
from olmo_core.nn.transformer import TransformerConfig
from olmo_core.optim import SkipStepAdamW
from olmo_core.train import Trainer

from pretrain_exp.errors import UserError
from pretrain_exp.framework.olmo3.callbacks import SkipHistory
from pretrain_exp.framework.olmo3.config import config_of, is_native
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.probe import Probe, log_probabilities, probe_tokens
from pretrain_exp.framework.worker.ranks import Ranks
from pretrain_exp.framework.worker.tokenizer_files import copy_tokenizer


@dataclass(frozen=True)
class TrainerState:
    """A trainer with its model, optimizer and data loader, as `Checkpoints` writes and reads them.

    config: of the model as it is trained. history: what a skip-step optimizer remembers.
    """

    job: Job
    ranks: Ranks
    trainer: Trainer
    config: TransformerConfig
    history: SkipHistory

    def load(self, folder: Path | None) -> None:
        """Fills weights and optimizer, in place. None: from the initial weights, which a checkpoint may hold."""
        if folder is not None:
            self._read(folder / "checkpoint")
            self.history.load_state_dict(trainer_state(folder / "checkpoint")["callbacks"].get("skip_history", {}))
        elif is_native(self.job.model.get("checkpoint")):
            native = Path(self.job.model["checkpoint"])
            check_origin(self.job, native, self.trainer)
            self._read(native)
            self._check_counts()
        else:
            self._fill()

    def stand_at(self, step: int) -> None:
        """Puts trainer and data loader where `step` updates have been made."""
        phases, trainer = self.job.phases, self.trainer
        trainer.global_step = step
        trainer.global_train_tokens_seen = phases.position_of_step(step)
        trainer.data_loader.go_to(phases.first_slot(step))
        trainer.epoch = trainer.data_loader.epoch

    def save(self, folder: Path) -> None:
        self._begin_to_count()
        checkpoint = folder / "checkpoint"
        checkpointer = self.trainer.checkpointer
        checkpointer.save(checkpoint, self.trainer.train_module, self.trainer.state_dict())
        if self.ranks.first:
            checkpointer.write_file(str(checkpoint), "config.json", json.dumps(config_of(self.job, self.config)))
            copy_tokenizer(self.job.tokenizer, checkpoint / "hf")

    def probe(self) -> Probe:
        length = self.job.phases.sequence_length(self.job.start_step)
        tokens = probe_tokens(self.config.vocab_size, length)
        with torch.compiler.set_stance("force_eager"):
            logits = self.trainer.train_module.eval_batch({"input_ids": tokens.to(self.ranks.device)})
        values = log_probabilities(get_local_tensor(logits).cpu(), tokens)
        return Probe(self.config.vocab_size, length, self.job.training["precision"], values)

    def _read(self, checkpoint: Path) -> None:
        module = self.trainer.train_module
        self.trainer.checkpointer.load(checkpoint, module, load_trainer_state=False, load_optim_state=True)

    def _fill(self) -> None:
        """Initial weights, made whole by the first rank on its CPU, so that they are the same for any strategy."""
        state: dict[str, Any] = {}
        if self.ranks.first:
            model = self.config.build(init_device="cpu")
            name = self.job.model.get("checkpoint")
            if name is None:
                model.init_weights(device=torch.device("cpu"))
            else:
                from pretrain_exp.framework.olmo3.hf import load_hf

                load_hf(name, self.job.model.get("revision"), model)
            state = model.state_dict()
        options = dcp_state.StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
        dcp_state.set_model_state_dict(self.trainer.train_module.model, state, options=options)

    def _begin_to_count(self) -> None:
        """Fills the state of an optimizer that has made no step yet.

        Where it is empty torch fills it before it is saved, by a step without gradients that Adam counts
        (`_init_optim_state`): the first real one would be counted as the second, in a run that was saved at its
        beginning and in no other.
        """
        module = self.trainer.train_module
        if not module.optim.state:
            dcp_state.get_optimizer_state_dict(module.model, module.optim)
            for state in module.optim.state.values():
                if "step" in state:
                    state["step"].zero_()

    def _check_counts(self) -> None:
        """UserError where a skip-step AdamW counts its steps and its checkpoint's did not, or the other way round.

        Before July 2025 OLMo-core's did not count, which makes its steps 2.2 times as long; to begin to count in the
        middle of a run would shorten them.
        """
        optimizer, step = self.trainer.train_module.optim, self.job.start_step
        if not isinstance(optimizer, SkipStepAdamW) or step == 0:
            return
        counted = any(bool(state["step"].item()) for state in optimizer.state.values() if "step" in state)
        if counted != optimizer.stepfix:
            fix = f"training.args.train_module.optim.step_increment_bugfix={str(counted).lower()}"
            problem = f"the checkpoint's optimizer {'counted' if counted else 'did not count'} its steps"
            raise UserError(problem, key="model.checkpoint", value=self.job.model["checkpoint"], fix=fix)


def trainer_state(checkpoint: Path) -> dict[str, Any]:
    """What the trainer wrote beside the weights, read without running anything; {} where it is not there."""
    path = checkpoint / "train" / "rank0.pt"
    if not path.is_file():
        return {}
    reconstruct = np.empty(0).__reduce__()[0]
    arrays: list[Any] = [np.ndarray, np.dtype, type(np.dtype("uint32")), type(np.dtype("bool"))]
    arrays += [(reconstruct, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    with torch.serialization.safe_globals(arrays):
        return torch.load(path, map_location="cpu", weights_only=True)


def check_origin(job: Job, checkpoint: Path, trainer: Trainer) -> None:
    """UserError where a checkpoint stands at another step, or at another place of the data, than the job begins at.

    Files other than those of the checkpoint's own run are said, not refused: they may be what is asked.
    """
    try:
        said = trainer_state(checkpoint)
    except UnpicklingError as error:
        print(f"warning: where the checkpoint stands is not checked: {str(error).splitlines()[0]}", file=sys.stderr)
        return
    if not said:
        return
    step, batch = job.start_step, job.phases.batch_size(job.start_step)
    if said["global_step"] != step:
        problem = f"the checkpoint stands at step {said['global_step']}, the job begins at {step}"
        raise UserError(problem, key="model.checkpoint_step", value=step, fix=f"give {said['global_step']}")
    data: Mapping[str, Any] = said.get("data_loader") or {}
    if job.model.get("data_seed") is None or job.order["kind"] != "olmo_core" or not data or step == 0:
        return
    seed, seen, ours = data.get("seed"), said["global_train_tokens_seen"], job.phases.position_of_step(step)
    if seed != job.order["seed"]:
        problem = f"the checkpoint's run read in the order of seed {seed}"
        raise UserError(problem, key="model.data_seed", value=job.order["seed"], fix=f"give {seed}")
    if seen != ours:
        problem = f"the checkpoint's run had read {seen:,} tokens; {batch} sequences a step make {ours:,}"
        raise UserError(problem, key="training.batch_size", value=batch)
    fingerprint = trainer.data_loader.state_dict().get("dataset_fingerprint")
    if fingerprint is not None and data.get("dataset_fingerprint") != fingerprint:
        text = "the token files are not those that the checkpoint's run read, by OLMo-core's fingerprint"
        print(f"warning: {text}", file=sys.stderr)
