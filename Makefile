# The two commands: `make demo` and `make test`. Both make a virtual environment of their own in .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test lint docs install wheels weights clean help

help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e ".[dev]"
	@touch $@

install: $(VENV)/.installed ## make the environment and install the package in it

demo: install ## train DCGAN on the embedded emoji (about 10 minutes on 2 cores) and show where the pictures are
	$(BIN)/zoo fit --config dcgan-emoji32-small
	@echo
	@echo "Pictures:  runs/dcgan-emoji32-small/samples/   (a grid every 100 steps, and progress.gif of them all)"
	@echo "Next:      $(BIN)/zoo sample runs/dcgan-emoji32-small/checkpoints/last.ckpt --num 64 --out grid.png"

test: install ## run all tests, one process per core
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

lint: install ## style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install ## build the documentation site into build/site; a warning is an error
	$(if $(shell command -v npm),npm install --silent --prefix build/npm onnxruntime-web@1.30.0,@echo "no npm: the site gets no live page")
	$(BIN)/python -m docs.build
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -f build/mkdocs.yml

STARTERS = $(shell sed -n 's/^ *"\([a-z0-9_-]*\.safetensors\)",$$/\1/p' pyproject.toml)

wheels: install weights ## build both wheels into dist/: the package with its starters, and all other weights
	rm -rf build/lib
	$(BIN)/python -m build --wheel --outdir dist .

weights: install ## build the wheel generative-zoo-weights into dist/
	rm -rf build/weights && mkdir -p build/weights/generative_zoo_weights
	cp zoo/weights/pyproject.toml LICENSE datamodules/data/emoji/LICENSE-* build/weights
	cp zoo/weights/*.safetensors build/weights/generative_zoo_weights
	cd build/weights/generative_zoo_weights && rm $(STARTERS)
	echo '"""Pretrained weights of generative-zoo."""' > build/weights/generative_zoo_weights/__init__.py
	$(BIN)/python -m build --wheel --outdir dist build/weights

clean: ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
