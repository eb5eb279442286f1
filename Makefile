# A virtual environment is made on first use, and gets the pinned packages whenever they change.
VENV = .venv
ARGS =
PYTHON = $(VENV)/bin/python

# Asked of TensorFlow: a driver without the CUDA packages is of no use to it.
HAS_GPU = import sys, tensorflow as tf; sys.exit(not tf.config.list_physical_devices('GPU'))

.DEFAULT_GOAL := help
.PHONY: help run demo study test gpu-check soak lint format docs clean venv rendering

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

run: rendering ## train BIRD on dmc_cartpole_swingup; more flags in ARGS="--seed 3 ..."
	"$(PYTHON)" run.py --variant bird --task dmc_cartpole_swingup \
	  $$("$(PYTHON)" -c "$(HAS_GPU)" 2>/dev/null || echo --configs cpu --env.action_repeat 8) $(ARGS)

demo: rendering ## play a policy that learned cartpole swingup from pixels: returns, and demo.gif
	"$(PYTHON)" run.py evaluate --logdir examples/bird-cartpole_swingup --episodes 3 --video demo.gif

STUDY = "$(PYTHON)" run.py sweep --variants dreamer,bird,soft_bird --seeds 0..4 \
	--configs cpu --steps 100000 --cpus-per-run 1 --logdir logdir/study

study: rendering ## compare three variants, five seeds each: tables, figures, a page; resumes (docs/paper.md)
	$(STUDY) --tasks dmc_cartpole_swingup --env.action_repeat 8 $(ARGS)
	$(STUDY) --tasks dmc_cartpole_balance,dmc_cheetah_run $(ARGS)
	"$(PYTHON)" run.py compare logdir/study --against dreamer
	"$(PYTHON)" run.py plot logdir/study --outdir logdir/study/figures
	"$(PYTHON)" run.py report logdir/study --out logdir/study/page

test: rendering ## run the tests
	"$(PYTHON)" -m pytest $(ARGS)

gpu-check: rendering ## tell in 15 minutes whether the GPU works, and how fast it trains (docs/gpu.md)
	"$(PYTHON)" run.py gpu-check $(ARGS)

soak: rendering ## stop a real run 50 times, each run of a sweep once, try 2,500 damaged inputs of each kind (over 20 minutes)
	"$(PYTHON)" -m pytest -o faulthandler_timeout=0 --numprocesses=0 -s tests/training/test_stopping.py tests/training/test_fuzz.py tests/commands/test_sweep_soak.py tests/commands/test_sweep_ray.py tests/training/test_distributed.py tests/agent/test_replicas.py tests/commands/test_gpu_check.py tests/training/test_overlap.py tests/utils/test_tensorflow.py --kills 50 --fuzz 2500 $(ARGS)

lint: venv ## check format and style
	"$(PYTHON)" -m ruff format --check .
	"$(PYTHON)" -m ruff check .

format: venv ## format the code and mend what can be mended
	"$(PYTHON)" -m ruff format .
	"$(PYTHON)" -m ruff check --fix .

docs: venv ## build the site into build/site; a broken link or reference fails
	"$(PYTHON)" -m pip install -q --disable-pip-version-check --no-deps -r requirements-docs.txt
	NO_MKDOCS_2_WARNING=1 "$(PYTHON)" -m mkdocs build

clean: ## remove the virtual environment, caches and what was built, not logdir
	rm -rf .venv .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv: ## set up .venv with the exact pins; elsewhere with VENV=FOLDER
	@tools/ensure_venv.sh "$(VENV)"

rendering: venv ## render a frame, or install what that takes
	@tools/ensure_rendering.sh "$(PYTHON)"
