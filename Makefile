# Short commands. Everything is installed into .venv; nothing else on the machine changes.
#   make demo    render examples/face.png + examples/talk.wav to out/demo.mp4
#   make gallery  render examples/gallery anew: six faces, three voices, and five minutes of one
#   make test    install the development extra; formatting, lint, types, import directions, tests
#   make check   the same
#   make live-examples  test the examples of livekit, pipecat and WHIP against their packages
#   make docs    renew the generated pages and figures, build the documentation in build/docs
#   make train-tiny ASSETS=dir   make the embedded model again

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Two workers, each with whole files: what a file's tests share is built once. In the order of their
# names: else the files of one long test come last, and one worker waits for the other.
PYTEST_ARGS ?= --numprocesses 2 --dist loadfile --no-loadscope-reorder

# Stamps: a second call installs again only when what it depends on has changed. An editable
# development install always runs the sources as they are, so `demo` uses it where there is one.
READY := $(VENV)/.ready
PACKAGE := $(VENV)/.package
DEVELOPMENT := $(VENV)/.development
SOURCES := weights.toml README.md LICENSE NOTICE \
	$(shell find joyflash_cli -type f -not -name '*.pyc' -not -path '*/.*')
INSTALLED := $(if $(wildcard $(DEVELOPMENT)),$(DEVELOPMENT),$(PACKAGE))

.DELETE_ON_ERROR:
.PHONY: demo gallery test check live-examples docs train-tiny clean

demo: $(INSTALLED)
	mkdir -p out
	$(BIN)/joyflash render --image examples/face.png --audio examples/talk.wav \
		--output out/demo.mp4 --overwrite
	@echo "The video is in $(CURDIR)/out/demo.mp4"

gallery: $(INSTALLED)
	$(BIN)/python examples/gallery.py
	@echo "The page is $(CURDIR)/examples/gallery/README.md"

check: test

test: $(DEVELOPMENT)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy joyflash_cli
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# These packages are large, and no part of the development extra.
live-examples: $(DEVELOPMENT)
	$(PIP_INSTALL) livekit-agents pipecat-ai aiortc
	$(BIN)/python -m pytest tests/test_live_examples.py

docs: $(DEVELOPMENT)
	$(BIN)/python docs/draw.py
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "The documentation is in $(CURDIR)/build/docs"

# Needs flite, espeak-ng and the source packs: make train-tiny ASSETS=dir (several hours).
ASSETS ?= assets
train-tiny: $(DEVELOPMENT)
	$(PIP_INSTALL) --editable '.[train]'
	for stage in sources speech clips photo-clips film-clips unpack front-end codec \
		latents lip-reader generator guidance teacher ode-pairs ode dmd predictions \
		decoder export; do \
		$(BIN)/joyflash train $$stage --config runs/tiny.toml --assets $(ASSETS) || exit 1; \
	done

clean:
	rm -rf $(VENV) out build dist

# torch goes first and by its exact version: the resolver must not weigh it against newer builds.
$(READY): constraints.txt
	@echo "Preparing $(VENV) (a few minutes the first time) ..."
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) "$$(grep '^torch==' constraints.txt)"
	@touch $@

$(PACKAGE): $(READY) pyproject.toml $(SOURCES)
	$(PIP_INSTALL) .
	@touch $@

$(DEVELOPMENT): $(READY) pyproject.toml
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@
