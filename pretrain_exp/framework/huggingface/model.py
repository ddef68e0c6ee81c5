"""The model of a worker: any causal language model of transformers, sharded, with its loss.

    config --skeleton--> on meta --compile, shard, materialise--> empty --initial weights or a checkpoint--> ready

With more than one rank, on a GPU or in bf16 every layer is an FSDP2 unit (Zhao et al. 2023): parameters, gradients and
moments are float32 shards, the computation runs in the asked precision. One float32 rank on a CPU is the plain module.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from pretrain_exp.errors import UserError
from pretrain_exp.framework.huggingface.head import LinearCrossEntropy, cross_entropy
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.ranks import Ranks

NAMED = 20  # weights that a warning lists


class LanguageModel(nn.Module):
    """A causal language model and its loss; the root of the sharding, so that the head's weight is whole here."""

    def __init__(self, hf: Any) -> None:
        super().__init__()
        self.hf = hf
        self.plain_head = False  # whether the logits are the head's output and nothing else; `find_head` looks

    def forward(
        self,
        tokens: torch.Tensor,  # (B, S) int64
        labels: torch.Tensor | None = None,  # (B, S) int64, see `loader.derive`
        positions: torch.Tensor | None = None,  # (B, S) int64; None: one document a row
        noise: torch.Tensor | None = None,  # (B, S, D) float32, added to the embeddings
        z: float = 0.0,
        scale: float = 1.0,
    ) -> Any:
        """Without labels the logits (B, S, V); with labels (loss, [sum nll, sum lse^2]), see head.py."""
        inputs: dict[str, Any] = {"input_ids": tokens}
        if noise is not None:
            embedded = self.hf.get_input_embeddings()(tokens)
            inputs = {"inputs_embeds": embedded + noise.to(embedded.dtype)}
        if positions is not None:
            inputs["position_ids"] = positions  # transformers makes the block-diagonal mask from where they restart
        if labels is None:
            return self.hf(**inputs, use_cache=False).logits
        if not self.plain_head:
            logits = self.hf(**inputs, use_cache=False).logits
            return cross_entropy(logits.flatten(0, 1), labels.flatten(), z, scale)
        hidden = self.hf.base_model(**inputs, use_cache=False).last_hidden_state
        head = self.hf.get_output_embeddings()
        return LinearCrossEntropy.apply(hidden.flatten(0, 1), head.weight, head.bias, labels.flatten(), z, scale)

    @torch.no_grad()
    def find_head(self, tokens: torch.Tensor) -> None:
        """Watches one forward: are the logits the output of a linear head on the last hidden state, and no more?"""
        head = self.hf.get_output_embeddings()
        seen: dict[str, torch.Tensor] = {}
        if not isinstance(head, nn.Linear):
            return
        hooks = [
            head.register_forward_hook(lambda _m, i, o: seen.update(head_input=i[0], head_output=o)),
            self.hf.base_model.register_forward_hook(lambda _m, _i, o: seen.update(hidden=o.last_hidden_state)),
        ]
        with evaluating(self):
            logits = self(tokens)
        for hook in hooks:
            hook.remove()
        same_input = seen["head_input"].data_ptr() == seen["hidden"].data_ptr()
        self.plain_head = (
            same_input and seen["head_input"].shape == seen["hidden"].shape and seen["head_output"] is logits
        )

    @torch.no_grad()
    def check_documents(self, tokens: torch.Tensor) -> None:
        """UserError where a token of one document changes the logits of the next one in its row."""
        half = tokens.shape[1] // 2
        positions = torch.arange(tokens.shape[1], device=tokens.device).expand_as(tokens).clone()
        positions[:, half:] -= half
        other = tokens.clone()
        other[:, : half - 1] = tokens[:, : half - 1].flip(1)
        with evaluating(self):
            leaks = not torch.equal(
                self(tokens, positions=positions)[:, half:], self(other, positions=positions)[:, half:]
            )
        if leaks:
            raise UserError(
                f"{type(self.hf).__name__} does not keep the documents of a row apart",
                key="training.document_masking",
                value=True,
                fix="switch it off, or take another model.attn_implementation",
            )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """No dropout, nothing compiled."""
    model.eval()
    with torch.compiler.set_stance("force_eager"):
        yield
    model.train()


def build_model(job: Job, ranks: Ranks) -> LanguageModel:
    """The sharded model with memory for its weights; `load_initial` or a checkpoint fills them."""
    training = job.training
    hf = skeleton(model_config(job.model), job.model.get("attn_implementation"))
    if training["activation_checkpointing"]:
        hf.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model = LanguageModel(hf)
    kinds = set(hf._no_split_modules or ())
    layers = [module for module in hf.modules() if type(module).__name__ in kinds]
    if training["compile"]:
        for layer in layers:
            layer.compile()
    bf16 = training["precision"] == "bf16"
    if bf16 or ranks.world > 1 or ranks.device.type == "cuda":
        mesh = init_device_mesh(ranks.device.type, (ranks.world,))
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if bf16 else MixedPrecisionPolicy()
        for unit in (*layers, model):
            fully_shard(unit, mesh=mesh, mp_policy=policy)
    materialise(model, ranks.device)
    hf.tie_weights()
    return model.train()


def model_config(model: dict[str, Any]) -> Any:
    """The transformers configuration: from the job's fields (from scratch) or from the checkpoint."""
    from transformers import AutoConfig

    if not model.get("config"):
        return AutoConfig.from_pretrained(model["checkpoint"], revision=model.get("revision"))
    fields = {"bos_token_id": None, "pad_token_id": None, **model["config"]}  # their defaults fit another vocabulary
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    known = AutoConfig.for_model(config.model_type)
    unknown = sorted(name for name in fields if not hasattr(known, name))
    if unknown:
        raise UserError(f"{config.model_type} has no field {', '.join(unknown)}", key="model.config", value=unknown)
    return config


def skeleton(config: Any, attention: str | None) -> Any:
    """The model with its parameters on the meta device, and its buffers, which no checkpoint holds, computed."""
    from transformers import AutoModelForCausalLM

    kwargs = {"attn_implementation": attention} if attention else {}
    with _parameters_on_meta():
        hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **kwargs)
    hf.get_input_embeddings().padding_idx = None  # a padding token's embedding would not learn; rows are never padded
    return hf


def materialise(model: nn.Module, device: torch.device) -> None:
    """Memory on the device for what lies on meta; moves the rest."""
    model._apply(lambda t: torch.empty_like(t, device=device) if t.device.type == "meta" else t.to(device))


def load_initial(job: Job, model: LanguageModel, ranks: Ranks) -> None:
    """Fills the weights, drawn from the init seed or read from a Hugging Face checkpoint by the first rank, for all."""
    source = _initial_tensors(job) if ranks.first else {}
    for name, target in weights(model.hf).items():
        full = torch.empty(target.shape, dtype=target.dtype, device=ranks.device)
        if ranks.first:
            full.copy_(source[name].detach())
        if ranks.world > 1:
            dist.broadcast(full, src=0)
        with torch.no_grad():
            if isinstance(target, DTensor):
                target.copy_(distribute_tensor(full, target.device_mesh, target.placements, src_data_rank=None))
            else:
                target.copy_(full)


def _initial_tensors(job: Job) -> dict[str, torch.Tensor]:
    from transformers import AutoModelForCausalLM

    if job.model.get("config"):
        torch.manual_seed(job.init_seed)
        return weights(AutoModelForCausalLM.from_config(model_config(job.model), dtype=torch.float32))
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        job.model["checkpoint"], revision=job.model.get("revision"), dtype=torch.float32, output_loading_info=True
    )
    model, found = loaded
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise UserError(f"the checkpoint lacks {len(missing)} weights, first {missing[0]}", key="model.checkpoint")
    if found["unexpected_keys"]:
        unused = sorted(found["unexpected_keys"])
        names = ", ".join(unused[:NAMED]) + (", ..." if len(unused) > NAMED else "")
        text = f"{type(model).__name__} has no place for {len(unused)} weights of the checkpoint, left out: {names}"
        print(f"warning: {text}", file=sys.stderr)
    return weights(model)


def weights(hf: nn.Module) -> dict[str, torch.Tensor]:
    """Every tensor that a checkpoint holds, once, by its name: parameters and persistent buffers."""
    named: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, tensor in hf.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            named[name] = tensor
    return named


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    original = nn.Module.register_parameter

    def register(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and parameter.device.type != "meta":
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        original(module, name, parameter)

    setattr(nn.Module, "register_parameter", register)  # noqa: B010  mypy lets no method be assigned
    try:
        yield
    finally:
        setattr(nn.Module, "register_parameter", original)  # noqa: B010
