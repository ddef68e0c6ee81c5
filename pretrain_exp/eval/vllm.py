"""Greedy decoding by vLLM, where `evaluation.generation: vllm` asks for it: token prompts in, token continuations out.

An optional extra, `pip install 'pretrain-exp[vllm]'`, for generation only: likelihoods are never vLLM's. Its engine
loads the checkpoint a second time, on the GPU that holds the model already, when something is first to be generated.
vLLM batches as it likes, so a token may differ from Hugging Face's where two candidates are equally likely within
rounding. Written after the documentation of vLLM 0.22; no released vLLM was run with it yet, and the tests hold the
calls against a stand-in.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from pretrain_exp.errors import UserError

if TYPE_CHECKING:
    from pretrain_exp.eval.base import LoadedModel

GPU_SHARE = 0.5  # of the GPU's memory for the engine; the scoring model has its place beside it


def check_vllm(device: str, shards: int) -> list[UserError]:
    """What forbids generation by vLLM on this machine, under these settings of `evaluation`."""
    key, back = "evaluation.generation", "evaluation.generation=huggingface"
    found = []
    if find_spec("vllm") is None:
        fix = f"pip install 'pretrain-exp[vllm]' into this Python, or {back}"
        found.append(UserError("vLLM is not installed", key=key, value="vllm", fix=fix))
    if device not in ("auto", "cuda"):
        fix = f"evaluation.device=cuda (CUDA_VISIBLE_DEVICES chooses one of several), or {back}"
        found.append(UserError("vLLM takes the first GPU that it sees", key="evaluation.device", value=device, fix=fix))
    if shards > 1:
        fix = f"evaluation.shards=1, or {back}"
        found.append(
            UserError("every shard would start vLLM on one GPU", key="evaluation.shards", value=shards, fix=fix)
        )
    return found


def continuations(
    model: LoadedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int, stop: Sequence[int]
) -> list[list[int]]:
    """The most probable tokens after each prompt, at most max_new_tokens, to a stop token, which may be among them."""
    from vllm import SamplingParams

    engine = _engine(model)
    settings = SamplingParams(
        temperature=0.0, max_tokens=max_new_tokens, stop_token_ids=list(stop), ignore_eos=True, detokenize=False
    )
    asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
    return [list(answer.outputs[0].token_ids) for answer in engine.generate(asked, settings, use_tqdm=False)]


def _engine(model: LoadedModel) -> Any:
    """vLLM's engine of the checkpoint, started once; it knows neither a tokenizer nor the model's generation_config."""
    if model.engine is None:
        from vllm import LLM

        model.engine = LLM(
            model=model.folder,
            revision=model.revision,
            skip_tokenizer_init=True,
            generation_config="vllm",
            dtype=str(model.model.dtype).removeprefix("torch."),
            max_model_len=model.context_length,
            gpu_memory_utilization=GPU_SHARE,
            seed=0,
        )
    return model.engine
