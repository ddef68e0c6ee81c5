# make demo: the default experiment. make test: the tests. Both build what they need in .venv first.
# make env-olmo2 env-olmo3 env-litgpt: environments of their own for the workers of these frameworks, found by themselves.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

WORKERS ?= 2
FRAMEWORKS := olmo2 olmo3 litgpt
ENVIRONMENTS := $(FRAMEWORKS:%=env-%)
olmo2_packages := ai2-olmo wandb transformers datasets torchmetrics scikit-learn
olmo3_packages := ai2-olmo-core transformers
litgpt_packages := litgpt transformers

.PHONY: demo test check lint types bench env clean $(ENVIRONMENTS)

env: $(STAMP)

$(ENVIRONMENTS): env-%: .venv-%/.installed

.venv-%/.installed: constraints/%.txt
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check --constraint $< $($*_packages)
	.venv-$*/bin/python -m pip check
	touch $@

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

demo: env
	$(BIN)/python -m pretrain_exp

test: env
	$(BIN)/python -m pytest -m "not slurm" -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)
	$(BIN)/python -m pytest -m slurm

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: env
	$(BIN)/mypy

check: lint types test

bench: env
	$(BIN)/python benchmarks/plan_costs.py --full
	$(BIN)/python benchmarks/plan_all_experiments.py
	$(BIN)/python benchmarks/scan.py
	$(BIN)/python benchmarks/data_order.py
	$(BIN)/python benchmarks/training_speed.py
	$(BIN)/python benchmarks/loader_overlay.py

clean:
	rm -rf $(VENV) $(FRAMEWORKS:%=.venv-%) .pytest_cache .mypy_cache .ruff_cache
