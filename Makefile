# make demo: environment, then the whole pipeline on the built-in phantom cohort.
# make test: environment, then all tests. make lint: the gates of the CI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN := runs/demo
JOBS ?= $(shell getconf _NPROCESSORS_ONLN)
REASON := Demonstration on phantoms: nobody was scanned, so there is nobody to protect

.PHONY: demo test lint format clean

demo: $(STAMP)
	@if grep -qs '"reason"' $(RUN)/release/manifest.json; then code=4; else \
		$(BIN)/synthcohort run configs/demo.yaml --out $(RUN); code=$$?; \
		if [ $$code -eq 4 ]; then echo; echo "The gate refused, as it should: see above. Now with the documented override:"; fi; \
	fi; \
	if [ $$code -eq 4 ]; then \
		$(BIN)/synthcohort run configs/demo.yaml --out $(RUN) --set "export.override_reason='$(REASON)'"; code=$$?; \
	fi; \
	[ $$code -eq 0 ] || exit $$code
	@$(BIN)/synthcohort verify $(RUN)/release
	@echo "Open $(RUN)/report.html; tracking: $(BIN)/mlflow ui --backend-store-uri sqlite:///runs/mlflow.db"

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --cov --cov-report=term:skip-covered --durations=10

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; name one: make PYTHON=python3.12") if sys.version_info < (3, 11) else 0'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) runs .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
