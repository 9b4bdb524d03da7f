# `make` alone lists what can be made. Needs only Python 3.11 or newer with venv and pip.

PYTHON ?= python3
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SUFFIXES:

VENV := .venv
TEST_VENV := .venv-test
LITELLM_VENV := .venv-litellm
TOOLS_VENV := .venv-tools
NODE_MODULES := scripts/labextension/node_modules
LAB41_VENV := .venv-lab41
LAB41_LIST := tests/requirements-lab41.txt
LITELLM_LIST := tests/requirements-litellm.txt
SCALEBOX_VENV := .venv-scalebox
SCALEBOX_LIST := tests/requirements-scalebox.txt
GATEWAY_VENV := .venv-gateway
GATEWAY_LIST := tests/requirements-gateway.txt

SOURCES := $(shell find sandbox_agent_magic examples -type f -not -path '*/__pycache__/*' -not -path '*/.*') \
	pyproject.toml README.md LICENSE
PYTEST_ARGS ?=
BENCH_ARGS ?=
ATTACK_ARGS ?=

.PHONY: help
help:  ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: demo
demo: $(VENV)/.installed  ## Ask the embedded model two questions about real data; writes demo-output/.
	@echo "==> the embedded model (478 MB, downloaded once, then kept in your cache folder)"
	@$(VENV)/bin/sandbox-agent model pull
	@echo "==> the demo: one notebook, a local model, a sandbox"
	@$(VENV)/bin/sandbox-agent demo -o demo-output

.PHONY: test
test: $(TEST_VENV)/.installed $(LAB41_VENV)/.installed $(SCALEBOX_VENV)/.installed $(if $(wildcard $(LITELLM_LIST)),$(LITELLM_VENV)/.installed) $(GATEWAY_VENV)/.installed models lint  ## Build the wheel, install it, check and test it.
	@echo "==> the test suite, against the installed wheel"
	@cd tests && LITELLM_VENV="$(CURDIR)/$(LITELLM_VENV)" LAB41_VENV="$(CURDIR)/$(LAB41_VENV)" GATEWAY_VENV="$(CURDIR)/$(GATEWAY_VENV)" \
		SCALEBOX_VENV="$(CURDIR)/$(SCALEBOX_VENV)" COVERAGE_FILE="$(CURDIR)/.coverage" \
		"$(CURDIR)/$(TEST_VENV)/bin/python" -P -m pytest --cov --cov-config=../pyproject.toml --cov-report=term $(PYTEST_ARGS)

.PHONY: models
models: $(TEST_VENV)/.installed
	@echo "==> the models that the suite asks (571 MB, downloaded once, then kept in your cache folder)"
	@$(TEST_VENV)/bin/sandbox-agent model pull
	@$(TEST_VENV)/bin/sandbox-agent model pull smollm2-135m

.PHONY: lint
lint: $(TEST_VENV)/.installed types  ## Style, types, layers, and env.example against the settings table.
	@echo "==> ruff"
	@$(TEST_VENV)/bin/ruff check .
	@$(TEST_VENV)/bin/ruff format --check .
	@echo "==> mypy --strict"
	@$(TEST_VENV)/bin/mypy
	@echo "==> layers"
	@$(TEST_VENV)/bin/lint-imports --no-logo
	@echo "==> env.example against the settings"
	@diff -u env.example <($(TEST_VENV)/bin/python -m sandbox_agent_magic.settings) \
		|| { echo "env.example is out of date: make env.example"; exit 1; }

.PHONY: types
types:  ## Types of the front-end module; needs npm (only CI insists on it).
	@echo "==> tsc --checkJs"
	@if command -v npm > /dev/null || [ -n "$${CI:-}" ]; then $(MAKE) $(NODE_MODULES)/.ready && $(NODE_MODULES)/.bin/tsc -p scripts/labextension; \
		else echo "skipped: there is no npm here"; fi

$(NODE_MODULES)/.ready: scripts/labextension/package-lock.json
	@npm ci --prefix scripts/labextension --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: labextension
labextension:  ## Name the front-end module after its content, once you have changed it.
	@$(PYTHON) scripts/name_labextension.py

.PHONY: pictures
pictures: $(TEST_VENV)/.installed  ## Renew the README's pictures of JupyterLab.
	@cd tests && "$(CURDIR)/$(TEST_VENV)/bin/python" -P -m pytest -q browser/test_pictures.py -k readme
	@for theme in light dark; do cp build/screenshots/readme-$$theme.png docs/jupyterlab-$$theme.png; done

.PHONY: bench
bench: $(VENV)/.installed $(GATEWAY_VENV)/.installed  ## Measure against the floors; prints one table.
	@echo "==> benchmarks (some minutes; a busy machine blurs them)"
	@mkdir -p build && ln -sfn ../tests build/tests
	@cd build && GATEWAY_VENV="$(CURDIR)/$(GATEWAY_VENV)" "$(CURDIR)/$(VENV)/bin/python" -m tests.benchmarks $(BENCH_ARGS)

.PHONY: attack
attack: $(TEST_VENV)/.installed  ## Attack sandboxes and containers for real; prints the table and writes build/attacks.md.
	@echo "==> attacks on the sandbox (as root: also as an ordinary user that is made for it)"
	@mkdir -p build && ln -sfn ../tests build/tests
	@cd build && "$(CURDIR)/$(TEST_VENV)/bin/python" -m tests.attack --output attacks.md $(ATTACK_ARGS)

env.example: $(wildcard sandbox_agent_magic/settings/*.py) $(VENV)/.installed
	@echo "==> env.example from the settings table"
	@$(VENV)/bin/python -m sandbox_agent_magic.settings > $@

.PHONY: constraints
constraints:  ## Renew constraints.txt: the newest versions that fit, with hashes for all platforms.
	@echo "==> constraints.txt (Python 3.11 and newer, all platforms)"
	@test -x $(TOOLS_VENV)/bin/uv || { $(PYTHON) -m venv $(TOOLS_VENV) && $(TOOLS_VENV)/bin/python -m pip install -q uv; }
	@env -u UV_INDEX -u UV_INDEX_URL -u UV_DEFAULT_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS \
		$(TOOLS_VENV)/bin/uv pip compile -q pyproject.toml --extra local --extra remote --extra e2b --extra dev --upgrade --universal --python-version 3.11 \
		--fork-strategy fewest --generate-hashes --no-config --no-header --no-annotate --no-emit-index-url -o constraints.new
	@{ echo "# Everything that runs, checks and tests this package. Made by 'make constraints'; do not edit."; \
		cat constraints.new; } > constraints.txt && rm constraints.new

.PHONY: requirements-lab41
requirements-lab41:  ## Renew the list for the oldest JupyterLab and ipykernel that are tested.
	@echo "==> $(LAB41_LIST)"
	@test -x $(TOOLS_VENV)/bin/uv || { $(PYTHON) -m venv $(TOOLS_VENV) && $(TOOLS_VENV)/bin/python -m pip install -q uv; }
	@printf 'jupyterlab==4.1.8\nipykernel==6.29.5\n' | \
		env -u UV_INDEX -u UV_INDEX_URL -u UV_DEFAULT_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS \
		$(TOOLS_VENV)/bin/uv pip compile -q pyproject.toml - --upgrade --universal --python-version 3.11 \
		--fork-strategy fewest --generate-hashes --no-config --no-header --no-annotate --no-emit-index-url -o lab41.new
	@{ echo "# JupyterLab 4.1 and ipykernel 6.29, with all that this package needs. Made by 'make requirements-lab41'; do not edit."; \
		cat lab41.new; } > $(LAB41_LIST) && rm lab41.new

# The SDK of Scalebox and the one of E2B, which the other tests use, cannot share an environment.
.PHONY: requirements-scalebox
requirements-scalebox:  ## Renew the list for the tests of Scalebox.
	@echo "==> $(SCALEBOX_LIST)"
	@test -x $(TOOLS_VENV)/bin/uv || { $(PYTHON) -m venv $(TOOLS_VENV) && $(TOOLS_VENV)/bin/python -m pip install -q uv; }
	@printf 'matplotlib>=3.9\npandas>=2.2\npytest>=8.3\npytest-timeout>=2.3\n' | \
		env -u UV_INDEX -u UV_INDEX_URL -u UV_DEFAULT_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS \
		$(TOOLS_VENV)/bin/uv pip compile -q pyproject.toml - --extra local --extra scalebox --upgrade --universal --python-version 3.11 \
		--fork-strategy fewest --generate-hashes --no-config --no-header --no-annotate --no-emit-index-url -o scalebox.new
	@{ echo "# The SDK of Scalebox, with all that this package and its tests need. Made by 'make requirements-scalebox'; do not edit."; \
		cat scalebox.new; } > $(SCALEBOX_LIST) && rm scalebox.new

.PHONY: requirements-gateway
requirements-gateway:  ## Renew the list for Enterprise Gateway, which needs older packages than we do.
	@echo "==> $(GATEWAY_LIST)"
	@test -x $(TOOLS_VENV)/bin/uv || { $(PYTHON) -m venv $(TOOLS_VENV) && $(TOOLS_VENV)/bin/python -m pip install -q uv; }
	@echo 'jupyter-enterprise-gateway>=3.3' | \
		env -u UV_INDEX -u UV_INDEX_URL -u UV_DEFAULT_INDEX -u UV_EXTRA_INDEX_URL -u UV_FIND_LINKS \
		$(TOOLS_VENV)/bin/uv pip compile -q - --upgrade --universal --python-version 3.11 \
		--fork-strategy fewest --generate-hashes --no-config --no-header --no-annotate --no-emit-index-url -o gateway.new
	@{ echo "# Jupyter Enterprise Gateway, a server that the tests run code on. Made by 'make requirements-gateway'; do not edit."; \
		cat gateway.new; } > $(GATEWAY_LIST) && rm gateway.new

.PHONY: clean
clean:  ## Remove what was made here (not the models in your cache folder).
	@echo "==> removing environments, wheels and caches"
	@rm -rf $(VENV) $(TEST_VENV) $(LITELLM_VENV) $(LAB41_VENV) $(SCALEBOX_VENV) $(GATEWAY_VENV) $(TOOLS_VENV) build dist demo-output
	@rm -rf $(NODE_MODULES) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage .coverage.*
	@find sandbox_agent_magic tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- environments: rebuilt only when the pinned list changed -------------------------------------------------------

$(VENV)/.ready $(TEST_VENV)/.ready: constraints.txt scripts/make_venv.py
	@$(PYTHON) scripts/make_venv.py $(@D) constraints.txt
	@touch $@

$(LAB41_VENV)/.ready: $(LAB41_LIST) scripts/make_venv.py
	@$(PYTHON) scripts/make_venv.py $(@D) $(LAB41_LIST)
	@touch $@

$(SCALEBOX_VENV)/.ready: $(SCALEBOX_LIST) scripts/make_venv.py
	@$(PYTHON) scripts/make_venv.py $(@D) $(SCALEBOX_LIST)
	@touch $@

$(LITELLM_VENV)/.installed: $(LITELLM_LIST) scripts/make_venv.py
	@$(PYTHON) scripts/make_venv.py $(@D) $(LITELLM_LIST)
	@touch $@

$(GATEWAY_VENV)/.installed: $(GATEWAY_LIST) scripts/make_venv.py
	@if $(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then $(PYTHON) scripts/make_venv.py $(@D) $(GATEWAY_LIST); \
		else echo "==> $(@D): skipped, there is no wheel of its pyzmq for this Python" && mkdir -p $(@D); fi
	@touch $@

# They test the wheel that the other tests test.
$(LAB41_VENV)/.installed $(SCALEBOX_VENV)/.installed: %/.installed: %/.ready $(TEST_VENV)/.installed
	@$*/bin/python -m pip --disable-pip-version-check install -q --no-index --no-deps --force-reinstall build/$(TEST_VENV)/*.whl
	@touch $@

# The wheel is built in the environment that gets it: the build's own tools are pinned as well, and nothing is downloaded.
$(VENV)/.installed $(TEST_VENV)/.installed: %/.installed: %/.ready $(SOURCES)
	@echo "==> $*: building the wheel and installing it"
	@rm -rf build/$* && mkdir -p build/$*
	@$*/bin/python -m build --wheel --no-isolation --outdir build/$* . > build/$*.log 2>&1 || { cat build/$*.log; exit 1; }
	@$*/bin/python -m pip --disable-pip-version-check install -q --no-index --no-deps --force-reinstall build/$*/*.whl
	@$*/bin/python -m pip --disable-pip-version-check check -q
	@touch $@
