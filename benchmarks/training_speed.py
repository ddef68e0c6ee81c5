"""Our training step beside the plain one of transformers, on the same model and tokens, interleaved in one process.

    python benchmarks/training_speed.py --layers 3 --width 96 --vocab 2048 --length 128 --batch 32 [--z-loss 1e-4]

plain: `model(input_ids, labels).loss.backward()`, clipping, AdamW. ours: `Training` with all that it does beside: data
order, row digests, labels, metrics. Prints tokens/s of each in its best round and their ratio.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pretrain_exp.data.order import ShuffledOrder
from pretrain_exp.data.phases import Phase, Phases
from pretrain_exp.data.token_files import TokenFile, TokenFiles
from pretrain_exp.framework.huggingface.loader import Loader
from pretrain_exp.framework.huggingface.loop import Training
from pretrain_exp.framework.huggingface.model import build_model
from pretrain_exp.framework.huggingface.optimizer import build_optimizer
from pretrain_exp.framework.huggingface.sharded import ShardedModel
from pretrain_exp.framework.worker.checkpoints import Beginning, Checkpoints
from pretrain_exp.framework.worker.job import Job
from pretrain_exp.framework.worker.journal import Journal
from pretrain_exp.framework.worker.main import Attempt
from pretrain_exp.framework.worker.probe import probe_tokens
from pretrain_exp.framework.worker.ranks import Ranks
from pretrain_exp.framework.worker.stop import StopSignal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 3), ("width", 96), ("vocab", 2048), ("length", 128), ("batch", 32), ("heads", 4)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--inner", type=int, help="width of the MLP (4 times the width)")
    parser.add_argument("--micro", type=int, help="sequences a micro-batch")
    parser.add_argument("--model", default="olmo2")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="bf16" if torch.cuda.is_available() else "fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--z-loss", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        training = build_ours(options, Path(folder))
        ours, plain = ours_step(training), plain_step(options, training)
        rates: dict[str, list[float]] = {"plain": [], "ours": []}
        for _ in range(options.rounds + 1):  # the first round warms up
            for name, step in (("plain", plain), ("ours", ours)):
                started = time.perf_counter()
                for _ in range(options.steps):
                    step()
                if options.device == "cuda":
                    torch.cuda.synchronize()
                tokens = options.steps * options.batch * options.length
                rates[name].append(tokens / (time.perf_counter() - started))
    best = {name: max(values[1:]) for name, values in rates.items()}
    for name, rate in best.items():
        print(f"{name:6} {rate:12,.0f} tokens/s   (median {statistics.median(rates[name][1:]):,.0f})")
    print(f"ours / plain = {best['ours'] / best['plain']:.2f}")


def build_ours(options: argparse.Namespace, folder: Path) -> Training:
    """A training over random tokens, at step 0 and with its one save far away."""
    stream = np.random.default_rng(0).integers(0, options.vocab, options.length * 4096).astype(np.uint32)
    stream.tofile(folder / "tokens.npy")
    files = TokenFiles((TokenFile(str(folder / "tokens.npy"), "uint32", 0, len(stream), "random", "random"),), 0, None)
    config = {
        "model_type": options.model,
        "vocab_size": options.vocab,
        "hidden_size": options.width,
        "intermediate_size": options.inner or 4 * options.width,
        "num_hidden_layers": options.layers,
        "num_attention_heads": options.heads,
        "max_position_embeddings": options.length,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    settings: dict[str, Any] = {
        "sequence_length": options.length,
        "batch_size": options.batch,
        "micro_batch_size": options.micro,
        "precision": options.precision,
        "optimizer": {"lr": 1e-4, "betas": [0.9, 0.95], "eps": 1e-8, "weight_decay": 0.1},
        "schedule": {"name": "constant", "total_steps": 1 << 20},
        "max_grad_norm": 1.0,
        "z_loss": options.z_loss,
        "document_masking": False,
        "compile": options.compile,
        "activation_checkpointing": False,
        "loader_workers": 0,
        "log_every": 1,
        "resume_every_minutes": 15.0,
    }
    values = {
        "schema": 1,
        "start": {"state": None, "step": 0},
        "stop": 1 << 20,
        "save": [{"step": 1 << 20, "key": "never", "record": {}}],
        "store": str(folder / "store"),
        "live": str(folder),
        "order": ShuffledOrder(files, options.length, 0).to_json(),
        "phases": Phases([Phase(0, options.batch, options.length)]).to_json(),
        "overlay": None,
        "model": {"config": config},
        "training": settings,
        "tokenizer": None,
        "eos_token_id": 0,
        "seeds": {"init": 0},
        "hooks": [],
    }
    (folder / "job.json").write_text(json.dumps(values))
    job = Job.load(folder / "job.json")
    attempt = Attempt(0, 1, 0, 1, options.device, None, StopSignal())
    ranks = Ranks.join(attempt)
    model = build_model(job, ranks)
    trained = ShardedModel(job, ranks, model, build_optimizer(model.hf, settings["optimizer"]))
    checkpoints = Checkpoints(job, ranks, trained, Journal(job.live, ranks))
    checkpoints.load(Beginning.at(0, None))
    model.find_head(probe_tokens(options.vocab, options.length).to(ranks.device))
    return Training(checkpoints, trained, 0, attempt)


def ours_step(training: Training) -> Callable[[], None]:
    batches = Loader(training.job, 0, 1, 0).batches(0, 1 << 20)

    def step() -> None:
        training.train(next(batches))

    return step


def plain_step(options: argparse.Namespace, training: Training) -> Callable[[], None]:
    from transformers import AutoModelForCausalLM

    from pretrain_exp.framework.huggingface.model import model_config

    model = AutoModelForCausalLM.from_config(model_config(training.job.model), dtype=torch.float32).to(options.device)
    if options.compile:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
    batches = Loader(training.job, 0, 1, 0).batches(0, 1 << 20)
    size = options.micro or options.batch

    def step() -> None:
        tokens = torch.from_numpy(next(batches).tokens).to(options.device)
        for part in tokens.split(size):
            with torch.autocast(options.device, torch.bfloat16, enabled=options.precision == "bf16"):
                loss = model(input_ids=part, labels=part, use_cache=False).loss
            (loss * len(part) / len(tokens)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


if __name__ == "__main__":
    main()
