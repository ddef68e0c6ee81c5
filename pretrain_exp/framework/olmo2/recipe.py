"""What all official OLMo-2 runs have in common, in the field names of ai2-olmo's `ModelConfig` and `TrainConfig`.

A run takes it unless its configuration says otherwise. Source: the files OLMo2-*.yaml of allenai/OLMo,
configs/official-1124 and configs/official-0425. Standard library only: orchestrator and worker read it.
"""

from __future__ import annotations

from typing import Any

ARCHITECTURE: dict[str, Any] = {
    "block_type": "sequential",
    "norm_after": True,
    "layer_norm_type": "rms",
    "layer_norm_with_affine": True,
    "layer_norm_eps": 1e-6,
    "bias_for_layer_norm": False,
    "attention_layer_norm": True,
    "attention_layer_norm_with_affine": True,
    "activation_type": "swiglu",
    "include_bias": False,
    "alibi": False,
    "rope": True,
    "rope_theta": 500_000,
    "weight_tying": False,
    "attention_dropout": 0.0,
    "residual_dropout": 0.0,
    "embedding_dropout": 0.0,
    "init_fn": "normal",
    "init_std": 0.02,
    "init_cutoff_factor": 3,
}

FREE = ("layer_norm_eps", "rope_theta", "weight_tying", "init_fn", "init_std", "init_cutoff_factor")
FIXED: dict[str, Any] = {
    **{name: value for name, value in ARCHITECTURE.items() if name not in FREE and not name.endswith("dropout")},
    "block_group_size": 1,
    "clip_qkv": None,
    "embedding_layer_norm": False,
    "scale_logits": False,
}
"""What Olmo2ForCausalLM of transformers computes and no other value of these fields: without it no state converts."""

TRAINING: dict[str, Any] = {
    "optimizer": {"name": "adamw", "decay_norm_and_bias": True, "decay_embeddings": False, "selective_updates": False},
    "scheduler": {"units": "steps", "warmup_min_lr": 0.0},
    "data": {
        "drop_last": True,
        "pad_direction": "right",
        "generate_attention_mask": False,
        "instance_filter": {"repetition_max_period": 13, "repetition_min_period": 1, "repetition_max_count": 32},
    },
    "fsdp": {"wrapping_strategy": "by_block_and_size", "sharding_strategy": "FULL_SHARD", "precision": "mixed"},
    "ddp": {"grad_sync_mode": "batch", "find_unused_params": False},
    "gen1_gc_interval": 10,
}

OURS: dict[str, str] = {
    "seed": "seed.init",
    "optimizer.learning_rate": "training.optimizer.lr",
    "optimizer.betas": "training.optimizer.betas",
    "optimizer.eps": "training.optimizer.eps",
    "optimizer.weight_decay": "training.optimizer.weight_decay",
    "data.paths": "data",
    "data.datasets": "data",
    "data.memmap_dtype": "data",
    "data.seed": "model.data_seed",
    "data.num_workers": "training.loader_workers",
    "data.generate_doc_lengths": "training.document_masking",
    "global_train_batch_size": "training.batch_size",
    "device_train_microbatch_size": "training.micro_batch_size",
    "model.max_sequence_length": "training.sequence_length",
    "max_duration": "training.schedule.total_steps",
    "max_grad_norm": "training.max_grad_norm",
    "precision": "training.precision",
    "softmax_auxiliary_loss": "training.z_loss",
    "auxiliary_loss_multiplier": "training.z_loss",
    "load_path": "model.checkpoint",
    "stop_at": "training.num_steps",
    "stop_after": "training.num_steps",
    "evaluators": "eval",
    "wandb": "tracking",
    "tokenizer": "model.tokenizer",
    "compile": "training.compile=true",
}
"""Fields of TrainConfig whose place is another key of the configuration."""

NEITHER: dict[str, str] = {
    "run_name": "a state is named by its key",
    "epoch": "it follows from the step",
    "fast_forward_batches": "it follows from the step",
    "dry_run": "`pretrain-exp plan` trains nothing",
    "save_folder": "states lie in the store",
    "remote_save_folder": "states lie in the store",
    "save_overwrite": "states lie in the store",
    "save_interval": "states are saved where training.checkpoint_interval asks for them",
    "save_interval_unsharded": "states are saved where training.checkpoint_interval asks for them",
    "save_interval_ephemeral": "training.resume_every_minutes does what it does",
    "save_num_checkpoints_to_keep": "`pretrain-exp gc` releases states",
    "save_num_unsharded_checkpoints_to_keep": "`pretrain-exp gc` releases states",
    "force_save_unsharded": "states are saved where training.checkpoint_interval asks for them",
    "no_pre_train_checkpoint": "states are saved where training.checkpoint_interval asks for them",
    "try_load_latest_save": "a job goes on from the newest checkpoint by itself",
    "load_path_sharded_checkpointer": "a checkpoint is recognised by its files",
    "new_style_checkpoints": "it is deprecated; sharded_checkpointer takes its place",
    "reset_optimizer_state": "a Hugging Face folder is a start from weights alone",
    "reset_trainer_state": "model.checkpoint_step says where the run goes on",
    "device_train_batch_size": "it follows from training.batch_size and the ranks",
    "device_train_grad_accum": "it follows from training.micro_batch_size",
    "device_eval_batch_size": "evaluations are those of `eval`",
    "eval_interval": "evaluations are those of `eval`",
    "eval_subset_num_batches": "evaluations are those of `eval`",
    "eval_on_load": "evaluations are those of `eval`",
    "time_limit": "a job ends at its step or on a signal",
    "early_stopping_factor": "a run that ends by its loss is no pure function of its configuration",
    "extra_steps_after_cancel": "a job ends at its step or on a signal",
    "canceled_check_interval": "a job ends at its step or on a signal",
    "save_data_indices": "every row that is read is logged",
    "data.label_mask_paths": "masks that lie in files know nothing of edits",
    "data.drop_last": "a step reads whole batches",
    "data.persistent_workers": "workers end with the epoch",
    "model.precision": "training.precision is its place",
    "model.init_device": "it follows from the strategy",
    "model.max_sequence_length": "training.sequence_length is its place",
}
"""Fields of TrainConfig that a run cannot choose, and why."""
