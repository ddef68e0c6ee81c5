"""The validated configuration: what Hydra composed, checked as a whole before anything starts.

    DictConfig --plain--> dict --Config.model_validate--> Config --kinds--> Kinds (instances of every `_target_`)

`validate` reports all problems at once, each with its key, the value it got and the way out. Unknown keys are errors.
Numbers that enter a state key come from here, never from raw overrides (0.10 and 1e-1 are one number).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pretrain_exp.cross_checks import cross_checks
from pretrain_exp.errors import Problems, UserError
from pretrain_exp.kinds import Checked, check_kind, problems_of, refused
from pretrain_exp.own_code import own_code
from pretrain_exp.tracking.config import TrackingConfig


class Strict(Checked, BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class Seeds(Strict):
    """`seed=3` sets all; a named seed that is null follows `all`."""

    all: int = Field(0, ge=0)
    placement: int | None = Field(None, ge=0)  # where edits go, which item gets which dose
    order: int | None = Field(None, ge=0)  # the permutation of the training sequences
    init: int | None = Field(None, ge=0)  # initial weights (from scratch) and dropout

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            return {"all": value}
        if not isinstance(value, dict | Seeds):
            raise ValueError("must be a whole number (seed=3), or a mapping of all, placement, order and init")
        return value

    def resolved(self) -> dict[str, int]:
        named = {"placement": self.placement, "order": self.order, "init": self.init}
        return {name: self.all if value is None else value for name, value in named.items()}


class OptimizerConfig(Strict):
    lr: float = Field(gt=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)


class ScheduleConfig(Strict):
    name: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    warmup_steps: int = Field(0, ge=0)
    total_steps: int | None = Field(None, gt=0)  # of the whole run; null: checkpoint_step + num_steps
    decay_steps: int | None = Field(None, ge=0)  # wsd: length of the final decay; null: a tenth of the run
    min_lr_ratio: float = Field(0.1, ge=0, le=1)


class ModelConfig(Strict):
    name: str
    checkpoint: str | None = None  # null: from scratch; a folder or a hub name otherwise
    revision: str | None = None
    checkpoint_step: int = Field(0, ge=0)  # the training step that the checkpoint stands for
    checkpoint_url: str | None = None  # a pattern with {step}; downloaded to checkpoint
    checkpoint_files: list[str] | None = None  # the files below checkpoint_url
    config: dict[str, Any] | None = None  # the architecture, from scratch
    tokenizer: str | dict[str, Any]  # a folder, a hub name, or {vocab_size: n}: a BPE trained on the data
    sequence_length: int = Field(gt=1)
    batch_size: int = Field(gt=0)  # sequences an update
    optimizer: OptimizerConfig  # what the model's own run used: the default of training.optimizer
    schedule: ScheduleConfig = ScheduleConfig()
    attn_implementation: str | None = None
    parameters: int | None = Field(None, gt=0)  # how many it has: only to say whether they fit the GPUs
    official: str | None = None  # an official configuration file of the framework, which replaces the fields above
    data_mix: str | None = None  # the official list of its token files: the default of data=official
    data_seed: int | None = Field(None, ge=0)  # of the official data order; null: seed.order takes its place

    @model_validator(mode="before")
    @classmethod
    def _begins_somewhere(cls, value: object) -> object:
        sources = ("checkpoint", "checkpoint_url", "config", "tokenizer")
        if isinstance(value, dict) and not any(value.get(name) for name in sources):
            name = f"model={value.get('name')}"
            fix = "model.checkpoint=FOLDER_OR_HUB_NAME, and model.tokenizer= where that holds none"
            raise refused(f"{name} needs one", "checkpoint", None, fix)
        return value

    @model_validator(mode="after")
    def _source(self) -> ModelConfig:
        if self.checkpoint is None and self.checkpoint_url is None and self.config is None:
            fix = "give it, model.checkpoint_url or, from scratch, model.config"
            raise refused("neither a checkpoint nor a config", "checkpoint", None, fix)
        if self.checkpoint is None and self.checkpoint_url is None and self.checkpoint_step:
            problem = "counts from a checkpoint, and this model starts from scratch"
            raise refused(problem, "checkpoint_step", self.checkpoint_step, "leave it at 0, or give model.checkpoint")
        if self.config is not None and (self.checkpoint or self.checkpoint_url):
            key = "checkpoint" if self.checkpoint else "checkpoint_url"
            fix = f"model=hf model.checkpoint=..., or model.config=null, which keeps the rest of model={self.name}"
            raise refused("a checkpoint beside a `config` from scratch", key, getattr(self, key), fix)
        return self


class TrainingConfig(Strict):
    num_steps: int = Field(gt=0)
    sequence_length: int = Field(gt=1)
    batch_size: int = Field(gt=0)
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    precision: Literal["fp32", "bf16"] = "fp32"
    max_grad_norm: float | None = Field(1.0, gt=0)
    z_loss: float = Field(0.0, ge=0)
    document_masking: bool = False
    permute_window: bool = False  # the sequences of this run's steps in another order, by seed.order
    # what follows does not enter a state's key: numerics and logistics
    micro_batch_size: int | None = Field(None, gt=0)
    compile: bool = False
    activation_checkpointing: bool = False
    loader_workers: int = Field(0, ge=0)
    log_every: int = Field(1, gt=0)
    checkpoint_interval: int | None = Field(None, gt=0)
    additional_checkpoint_steps: list[int] = []
    resume_every_minutes: float = Field(15.0, gt=0)
    retries: int = Field(10, ge=0)
    retry_seconds: float = Field(5.0, ge=0)  # before the first retry; doubled each time, ten minutes at most
    args: dict[str, Any] = {}  # further fields of the backend's own


KEY_FIELDS = (
    "optimizer",
    "precision",
    "max_grad_norm",
    "z_loss",
    "document_masking",
    "args",
)  # of training, in the key


class ArmsConfig(Strict):
    control: bool = True
    placebo: bool = False
    each: bool = False  # beside treated, an arm only_<insertion> for each insertion, with the edits of it alone


class EvaluationConfig(Strict):
    on_load: bool = False
    steps: list[int] = []
    every_checkpoint: bool = False
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    generation: Literal["huggingface", "vllm"] = "huggingface"  # who decodes greedily; likelihoods are never vLLM's
    shards: int = Field(1, gt=0)  # processes that share the evaluation of one state, a GPU each where there are any

    @model_validator(mode="after")
    def _one_device_each(self) -> EvaluationConfig:
        if self.shards > 1 and ":" in self.device:
            fix = "evaluation.device=cuda, which uses all GPUs"
            raise refused(f"{self.shards} shards on one device", "device", self.device, fix)
        return self


class HubConfig(Strict):
    repo_id: str | None = None  # null: nothing is pushed
    private: bool = True
    arms: list[str] = ["treated"]
    steps: list[int] | None = None  # null: the last one


class StudyConfig(Strict):
    name: str = "single"
    title: str | None = None
    question: str | None = None


class Config(Strict):
    seed: Seeds
    framework: dict[str, Any]
    model: ModelConfig
    data: dict[str, Any]
    insertion: dict[str, dict[str, Any]] = {}
    eval: dict[str, dict[str, Any]] = {}
    training: TrainingConfig
    executor: dict[str, Any]
    tracking: TrackingConfig = TrackingConfig()
    arms: ArmsConfig = ArmsConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    hub: HubConfig = HubConfig()
    study: StudyConfig = StudyConfig()
    replay: str | None = None  # a published plan to plant: a table of position, text, experiment
    export_plan: str | None = None  # where to write this plan as such a table
    store: str = "outputs/store"
    verify_reads: bool = True
    scan_holdouts: bool = False  # look for holdout items in all data that the run reads
    numerics: Literal["warn", "refuse"] = "warn"

    @property
    def first_step(self) -> int:
        return self.model.checkpoint_step

    @property
    def last_step(self) -> int:
        return self.model.checkpoint_step + self.training.num_steps


@dataclass(frozen=True)
class Kinds:
    """Instances of every `_target_` of a configuration, under their names in it."""

    framework: Any
    data: Any
    executor: Any
    insertions: dict[str, Any]
    evaluations: dict[str, Any]


class Unfit(Problems):
    """Each section is sound, and the framework cannot run them, or not on this machine."""

    def __init__(self, problems: list[UserError], config: Config, kinds: Kinds) -> None:
        super().__init__(problems)
        self.config, self.kinds = config, kinds


def validate(raw: Mapping[str, Any]) -> tuple[Config, Kinds]:
    """Checks a plain configuration and instantiates its kinds. Raises Problems with all that is wrong."""
    problems: list[UserError] = []
    wrong: list[UserError] = []
    config: Config | None = None
    try:
        config = Config.model_validate(dict(raw))
    except ValidationError as error:
        problems += problems_of(error, "", Config)
    kinds: dict[str, Any] = {}
    for group in ("framework", "data", "executor"):
        _collect(kinds, problems, group, raw.get(group), group)
    insertions: dict[str, Any] = {}
    evaluations: dict[str, Any] = {}
    for group, into in (("insertion", insertions), ("eval", evaluations)):
        nodes = raw.get(group)
        for name, node in nodes.items() if isinstance(nodes, Mapping) else ():
            _collect(into, problems, name, node, f"{group}.{name}")
    if "framework" in kinds and hasattr(kinds.get("executor"), "place"):
        try:
            kinds["framework"] = kinds["executor"].place(kinds["framework"])
        except UserError as error:
            problems.append(error)
    if config is not None:
        problems += cross_checks(config)
        if "framework" in kinds:
            model, training = config.model.model_dump(), training_facts(config)
            wrong = kinds["framework"].check(model, training)
    problems += [p for name, kind in insertions.items() for p in _files(kind, f"insertion.{name}")]
    problems += [p for name, kind in evaluations.items() for p in _files(kind, f"eval.{name}")]
    problems += _files(kinds["data"], "data") if "data" in kinds else []
    if problems or config is None:
        raise Problems([*problems, *wrong])
    checked = Kinds(kinds["framework"], kinds["data"], kinds["executor"], insertions, evaluations)
    if wrong:
        raise Unfit(wrong, config, checked)
    return config, checked


def training_facts(config: Config) -> dict[str, Any]:
    """The training section as a worker gets it: the schedule's total filled in."""
    training = config.training.model_dump()
    schedule = training["schedule"]
    schedule["total_steps"] = schedule["total_steps"] or config.last_step
    if schedule["decay_steps"] is None:
        schedule["decay_steps"] = schedule["total_steps"] // 10
    return training


def _collect(into: dict[str, Any], problems: list[UserError], name: str, node: object, key: str) -> None:
    try:
        into[name] = check_kind(node, key)
    except Problems as found:
        problems.extend(found.problems)


def _files(kind: Any, key: str) -> list[UserError]:
    """Inputs that a kind names and that are not there."""
    named = getattr(kind, "inputs", None) or getattr(kind, "files", None)
    if named is None:
        return []
    fix = "give an existing path; relative ones start at the folder where the command was typed"
    try:
        with own_code(type(kind), ""):
            paths = [(field, Path(path)) for field, path in named()]
    except UserError as error:
        return [error.under(key)]
    absent = [(field, path) for field, path in paths if not path.exists()]
    return [UserError("no such file", key=f"{key}.{field}", value=str(path), fix=fix) for field, path in absent]
