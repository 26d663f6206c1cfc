# Each target works on a machine with only Python, make and git; a second call starts in seconds.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/installed

.PHONY: install demo up test lint clean
install: $(STAMP)

# pip reinstalls only when a pinned version or the package's own metadata has changed.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: install
	$(VENV)/bin/tracker demo

up: install
	$(VENV)/bin/tracker up

# More workers than cores: a test waits for servers and disks for half of its time.
test: install
	$(VENV)/bin/python -m pytest -n $$(( $$(getconf _NPROCESSORS_ONLN) * 3 / 2 )) --dist loadfile --no-loadscope-reorder

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy tracker_pipeline
	$(VENV)/bin/lint-imports

clean:
	rm -rf $(VENV) .tracker
