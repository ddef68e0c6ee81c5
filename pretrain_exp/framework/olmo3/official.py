"""An official script of OLMo-core (src/scripts/official/OLMo2, OLMo3) as fields of `model` and of `training`.

    model         architecture, sequence length, batch, optimizer, schedule, mix and seed of the data
    training      precision, clipping, z-loss, micro-batch, and in `args` what has no name but OLMo-core's
    left          what it says that is not taken: folders, threads, and what depends on ranks or on a checkpoint

A field that this framework refuses in training.args is refused here too.

script.py reads it; nothing of it is run.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pretrain_exp.errors import UserError
from pretrain_exp.framework.olmo3.checks import REFUSED
from pretrain_exp.framework.olmo3.script import Made, Script, Unread, read

TOKENIZER = "allenai/dolma2-tokenizer"  # TokenizerName.dolma2 of OLMo-core 3.0
OPTIMIZERS = {"SkipStepAdamWConfig": "skip_step_adamw", "AdamWConfig": "adamw"}
SCHEDULES = {"CosWithWarmup": "cosine", "LinearWithWarmup": "linear", "WSD": "wsd", "ConstantWithWarmup": "constant"}
OWN_NAMES = {"lr", "betas", "eps", "weight_decay"}  # of an optimizer, which `model.optimizer` holds
POSITIONAL = {"TransformerActivationCheckpointingConfig": ("mode",)}
TAKEN = {  # the fields of a section that have a place here
    "dataset": {
        "sequence_length", "mix", "generate_doc_lengths", "max_target_sequence_length", "instance_filter_config",
    },
    "data_loader": {"global_batch_size", "seed"},
    "train_module": {
        "optim", "scheduler", "rank_microbatch_size", "max_sequence_length", "max_grad_norm", "z_loss_multiplier",
        "compile_model", "dp_config", "tp_config", "cp_config", "ac_config", "float8_config",
    },
    "trainer": {"max_duration"},
}  # fmt: skip
HARMLESS = {"data_loader.shuffle": True, "train_module.label_ignore_index": -100}  # of REFUSED: as it is here
STRATEGY = ("dp_config", "tp_config", "cp_config", "ac_config", "float8_config")


@dataclass(frozen=True)
class Official:
    """What a script says, as fields of our sections."""

    model: dict[str, Any]
    training: dict[str, Any]
    left: tuple[str, ...]


def read_script(path: Path) -> Official:
    """UserError where the file is no such script, or says something that matters by more than constants."""
    try:
        script = read(path.read_text())
    except FileNotFoundError:
        raise UserError("no such file", key="model.official", value=str(path)) from None
    except (SyntaxError, ValueError) as error:
        raise _wrong(path, f"cannot be read as Python ({error})") from None
    made = script.returned
    if not isinstance(made, Made) or made.cls != "ExperimentConfig":
        raise _wrong(path, "has no build_config that returns an ExperimentConfig")
    return _Reader(path, script, made).read()


class _Reader:
    def __init__(self, path: Path, script: Script, made: Made) -> None:
        self.path, self.left = path, list(script.conditional)
        if script.changed:
            raise _wrong(path, f"changes what it has made, which only running it would tell: {script.changed[0]}")
        self.parts = {name: self._made(made.values.get(name), name) for name in ("model", *TAKEN)}
        self.beside = {name: value for name, value in made.values.items() if name not in self.parts}

    def read(self) -> Official:
        dataset, loader, module = self.parts["dataset"], self.parts["data_loader"], self.parts["train_module"]
        if not dataset.name.startswith("NumpyFSLDatasetConfig"):
            problem = f"reads a {dataset.cls}; rows that are packed, padded or of variable length are not planned for"
            raise _wrong(self.path, problem)
        length = self._number(dataset, "sequence_length", "dataset")
        batch, beside = divmod(self._number(loader, "global_batch_size", "data_loader"), length)
        if beside:
            raise _wrong(self.path, f"its batch is no multiple of {length} tokens")
        optim = self._made(module.values.get("optim"), "train_module.optim")
        if optim.cls not in OPTIMIZERS:
            raise _wrong(self.path, f"trains with {optim.cls}, which is not driven here")
        seed = self._number(loader, "seed", "data_loader")
        mix = dataset.values.get("mix", dataset.args[0] if dataset.args else None)
        schedule, instead = self._schedule(module, batch * length)
        model = {
            "name": re.sub(r"\W+", "_", self.path.stem).lower(),
            "config": self._architecture(),
            "tokenizer": TOKENIZER,
            "sequence_length": length,
            "batch_size": batch,
            "optimizer": self._optimizer(optim),
            "schedule": schedule,
            "data_seed": seed,
            "data_mix": mix.replace("_", "-") if isinstance(mix, str) else None,
        }
        if not isinstance(mix, str):
            self.left.append(f"dataset.mix = {_text(mix)}")
        args: dict[str, Any] = {"train_module": {"optim": self._rest(optim), **self._strategy(module)}}
        args["train_module"] |= {"scheduler": instead} if instead else {}
        args["dataset"] = {
            name: self._plain(dataset.values[name], f"dataset.{name}")
            for name in ("max_target_sequence_length", "instance_filter_config")
            if dataset.values.get(name) is not None
        }
        training = {**self._training(module, length), "args": args}
        training["document_masking"] = bool(dataset.values.get("generate_doc_lengths"))
        self._tell_rest()
        return Official(model, training, tuple(self.left))

    def _architecture(self) -> dict[str, Any]:
        made = self.parts["model"]
        if made.cls != "TransformerConfig" or "." not in made.name:
            raise _wrong(self.path, f"its model is {_text(made)}, no named configuration of TransformerConfig")
        values = {name: value for name, value in made.values.items() if name != "attn_backend"}
        if "attn_backend" in made.values:
            self.left.append(f"model.attn_backend = {made.values['attn_backend']}: see model.attn_implementation")
        return {"factory": made.name.partition(".")[2], **{n: self._plain(v, f"model.{n}") for n, v in values.items()}}

    def _optimizer(self, optim: Made) -> dict[str, Any]:
        defaults = {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 1e-2}  # OLMo-core's
        found = {**defaults, **{name: optim.values[name] for name in OWN_NAMES & optim.values.keys()}}
        for name in OWN_NAMES:
            if name not in found or isinstance(found[name], Unread | Made):
                text = _text(found.get(name))
                raise _wrong(self.path, f"train_module.optim.{name} is {text}, not a constant; write the number there")
        return found

    def _rest(self, optim: Made) -> dict[str, Any]:
        """The optimizer's own fields, for training.args."""
        values = {name: value for name, value in optim.values.items() if name not in OWN_NAMES}
        plain = {name: self._plain(value, f"train_module.optim.{name}") for name, value in values.items()}
        return {"type": OPTIMIZERS[optim.cls], **plain}

    def _schedule(self, module: Made, batch_tokens: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """model.schedule; and the fields of OLMo-core's scheduler where it is one that has no name here."""
        made = self._made(module.values.get("scheduler"), "train_module.scheduler")
        values = {name: self._plain(value, f"train_module.scheduler.{name}") for name, value in made.values.items()}
        warmup = values.get("warmup", values.get("warmup_steps"))
        total = values.get("t_max") or self._duration(batch_tokens)
        fields = {"warmup_steps": warmup, "total_steps": total, "decay_steps": None}
        if made.cls not in SCHEDULES or warmup is None:
            kind = re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", made.cls).lower()
            return {**fields, "name": "constant", "warmup_steps": 0, "min_lr_ratio": 1.0}, {"type": kind, **values}
        fields |= {"name": SCHEDULES[made.cls], "min_lr_ratio": values.get("alpha_f", 0.1)}
        if made.cls == "WSD":
            decay = values.get("decay", values.get("decay_steps"))
            share = values.get("decay_fraction", 0.1)
            fields["decay_steps"] = decay if decay is not None else round(total * share) if total else None
            fields["min_lr_ratio"] = values.get("decay_min_lr", 0.0) / self._optimizer(module.values["optim"])["lr"]
        return fields, None

    def _duration(self, batch_tokens: int) -> int | None:
        """Steps of the whole run; None where that depends on the data."""
        made = self.parts["trainer"].values.get("max_duration")
        amount = made.args[0] if isinstance(made, Made) and made.args else None
        if isinstance(made, Made) and isinstance(amount, int):
            if made.name == "Duration.steps":
                return amount
            if made.name == "Duration.tokens":
                return math.ceil(amount / batch_tokens)
        self.left.append(f"trainer.max_duration = {_text(made)}: training.schedule.total_steps has to say it")
        return None

    def _training(self, module: Made, length: int) -> dict[str, Any]:
        micro = module.values.get("rank_microbatch_size")
        strategy = module.values.get("dp_config")
        dtype = strategy.values.get("param_dtype") if isinstance(strategy, Made) else None
        return {
            "precision": "bf16" if dtype == "bfloat16" else "fp32",
            "max_grad_norm": self._plain(module.values.get("max_grad_norm"), "train_module.max_grad_norm"),
            "z_loss": self._plain(module.values.get("z_loss_multiplier"), "train_module.z_loss_multiplier") or 0.0,
            "compile": bool(module.values.get("compile_model")),
            "micro_batch_size": micro // length if isinstance(micro, int) else None,
        }

    def _strategy(self, module: Made) -> dict[str, Any]:
        found = {}
        for name in STRATEGY:
            if module.values.get(name) is not None:
                found[name] = self._plain(module.values[name], f"train_module.{name}")
        if isinstance(found.get("dp_config"), dict):
            found["dp_config"].pop("param_dtype", None)  # training.precision
        return found

    def _plain(self, value: Any, name: str) -> Any:
        """Plain values of a tree; what is not in the file is left out of a mapping, and told."""
        if isinstance(value, list):
            return [self._plain(one, name) for one in value]
        if isinstance(value, dict):
            return {key: self._plain(one, f"{name}.{key}") for key, one in value.items()}
        if isinstance(value, Made) and "." not in value.name:
            given = dict(zip(POSITIONAL.get(value.name, ()), value.args, strict=False)) | value.values
            plain = {}
            for key, one in given.items():
                if isinstance(one, Unread) or (isinstance(one, Made) and "." in one.name):
                    self.left.append(f"{name}.{key} = {_text(one)}")
                else:
                    plain[key] = self._plain(one, f"{name}.{key}")
            return plain
        return _text(value) if isinstance(value, Made | Unread) else value

    def _made(self, value: Any, name: str) -> Made:
        if not isinstance(value, Made):
            raise _wrong(self.path, f"{name} is {_text(value)}, which only running it would tell")
        return value

    def _number(self, made: Made, name: str, part: str) -> int:
        value = made.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise _wrong(self.path, f"{part}.{name} is {_text(value)}, not a constant; write the number there")
        return value

    def _tell_rest(self) -> None:
        """What no other method has taken. UserError for what this framework cannot do."""
        rest = dict(self.beside)
        for part, taken in TAKEN.items():
            rest |= {f"{part}.{name}": value for name, value in self.parts[part].values.items() if name not in taken}
        for name, value in rest.items():
            if value is None or (name in HARMLESS and value == HARMLESS[name]):
                continue
            if name in REFUSED:
                raise _wrong(self.path, f"says {name} = {_text(value)}: {REFUSED[name]}")
            if name != "dataset.tokenizer" or value != Made("TokenizerConfig.dolma2"):
                self.left.append(f"{name} = {_text(value)}")


def _text(value: Any) -> str:
    """An expression as it was written, or nearly."""
    if isinstance(value, Unread):
        return value.text
    if isinstance(value, Made):
        inside = [*map(_text, value.args), *(f"{name}={_text(one)}" for name, one in value.values.items())]
        return f"{value.name}({', '.join(inside)})"
    return repr(value)


def _wrong(path: Path, problem: str) -> UserError:
    return UserError(f"the script {problem}", key="model.official", value=str(path))
