# Two commands set everything up: `make demo` and `make test`. Both make the environment first and are quick again later.
# `make docs` builds the site into build/site, without the network; the first time, and with FRESH=1, it runs every example and what
# is drawn for "Read a verdict" and the map of the lectures, some 25 minutes on two cores; MAP=1 draws the slow ones of the map, too.
# On two quiet cores the tests take a quarter of an hour; `make test-slow` runs those that are left out, some three hours.
# Another interpreter: make PYTHON=python3.12. Further options for pip: make PIP_FLAGS='--index-url ...'.

PYTHON ?= python3.11
PIP_FLAGS ?=
WORKERS ?= 2
BIN := .venv/bin
READY := .venv/ready
BENCH := .venv/ready-benchmarks
TYPES := .venv/typings/probgen

.PHONY: demo test test-slow lint docs bench clean

demo: $(READY)
	$(BIN)/python examples/demo.py

test: $(READY) lint
	$(BIN)/pytest -n $(WORKERS)

test-slow: $(READY)
	$(BIN)/pytest -n $(WORKERS) -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p $(TYPES)
	ln -sfn $(CURDIR)/models $(TYPES)/models
	ln -sfn $(CURDIR)/inference $(TYPES)/inference
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python

docs: $(READY)
	$(BIN)/python docs/draw.py --jobs $(WORKERS) $(if $(FRESH),--fresh) $(if $(MAP),--map)
	$(BIN)/python docs/build.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q -f docs/mkdocs.yml
	@echo "The site is in build/site: open build/site/index.html, or $(BIN)/python -m http.server -d build/site"

bench: $(BENCH)
	$(BIN)/python benchmarks/posterior.py

clean:
	rm -rf .venv runs build dist *.egg-info .pytest_cache .ruff_cache

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q $(PIP_FLAGS) -c constraints.txt -e '.[pyro,dev,docs]'
	touch $@

$(BENCH): $(READY)
	$(BIN)/pip install -q $(PIP_FLAGS) -c constraints.txt -e '.[pyro,dev,docs,benchmarks]'
	touch $@
