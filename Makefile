# `make reproduce` runs the main comparison on digits, `make paper` everything, `make test` the tests. Each sets everything up first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
CORES ?= 2
PRESET ?=
OVERLAY := $(if $(PRESET),--configfile workflow/presets/$(PRESET).yaml)
RESULTS := results/$(or $(PRESET),embedded)
REPORT := $(if $(PRESET),report-$(PRESET).html,report.html)
# One job a GPU, where there are any.
GPUS := $(shell n=$$(nvidia-smi -L 2>/dev/null | wc -l); [ "$$n" = 0 ] || echo --resources gpu=$$n)
# What DVC keeps of a run: dvc.yaml of the default preset, one made from it of any other.
RECORD := $(if $(PRESET),records/$(PRESET)/)dvc.yaml
CONFIGS := config.yaml$(if $(PRESET), workflow/presets/$(PRESET).yaml)
WITHOUT ?=
BIN := $(VENV)/bin
export PATH := $(abspath $(BIN)):$(PATH)
# Containers often set it: every job would compile its libraries anew, a second or two each time.
unexport PYTHONDONTWRITEBYTECODE
# Of another Python, or of how it is to run: jobs would end, or differ, by them.
unexport PYTHONHOME PYTHONSTARTUP PYTHONWARNINGS PYTHONOPTIMIZE

.PHONY: help
help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | column -t -s "$$(printf '\t')"

# The environment's own Python if there is one, else the first that is good enough; PYTHON=… names another.
PYTHON ?=
# A folder of wheels, to install without a network.
WHEELS ?=
WHEELS_FROM = $(WHEELS)
# $(call installed,flags): quick where nothing is to be done. envs/install.py says what it does; it needs no make.
installed = for python in $(or $(PYTHON),$(BIN)/python python3 python3.11 python3.12 python3.13); do \
	"$$python" -S -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null || continue; \
	"$$python" envs/install.py --venv $(VENV) $(if $(WHEELS_FROM),--wheels "$(WHEELS_FROM)") $(1); exit; done; \
	echo "make: Python 3.11, 3.12 or 3.13 is needed and was not found; install it or say make PYTHON=/path/to/python" >&2; exit 2

.PHONY: install
install:  ## what a run needs, in .venv, as locked (WHEELS=folder: without a network)
	@$(call installed)

.PHONY: install-dev
install-dev:  ## and what tests and lint need
	@$(call installed,--dev)

.PHONY: wheels
wheels: WHEELS_FROM =
wheels: install  ## fill a folder with the wheels of the lock, for machines without a network (WHEELS=folder; DEV=1: the tests' too)
	@python envs/wheels.py $(if $(DEV),--dev) "$(or $(WHEELS),wheels)"

# The target stands before flags that take several words (--quiet, --configfile).
# $(call written,target,overlay,results folder,report): the report is written anew where something in it is newer.
written = if [ ! -e $(4) ] || [ -n "$$(find $(addprefix $(3)/,tables figures claims opening gallery costs provenance) workflow/report -newer $(4) -type f -print -quit)" ]; then \
	snakemake $(1) --quiet all --report $(4) $(2); fi
define report
	@$(call written,$(1),$(2),$(3),$(4))
endef

.PHONY: reproduce
reproduce: install  ## the main comparison (PRESET=smoke, photos, paper …; CORES=2), the report, Table 1 on the screen
	@snakemake all --cores $(CORES) $(GPUS) $(OVERLAY)
	$(call report,all,$(OVERLAY),$(RESULTS),$(REPORT))
	@echo; directcm show $(RESULTS)/tables/table1.csv; echo; echo "Report: $(CURDIR)/$(REPORT)"; echo "Tables and figures: $(CURDIR)/$(RESULTS)"
	@directcm reproduced --configfile $(CONFIGS)

.PHONY: rehearse
rehearse: install  ## a preset's pipeline with small counts and stand-ins for weights and data, and what it costs (PRESET=paper; SIZE=full: SDXL's sizes; OWN=1: no stand-ins; PROFILE=slurm)
	@directcm rehearse --size $(or $(SIZE),small) --configfile $(CONFIGS) $(if $(OWN),--own) -- $(if $(PROFILE),--profile $(PROFILE),--cores $(CORES) $(GPUS))

.PHONY: paper
paper: install  ## every table and figure of the paper, our own, and the verdicts; then natural images (PRESET=…: that preset alone)
	@snakemake paper --cores $(CORES) $(GPUS) $(OVERLAY)
	$(call report,paper,$(OVERLAY),$(RESULTS),$(REPORT))
	@$(if $(PRESET),,snakemake all --cores $(CORES) $(GPUS) --configfile workflow/presets/photos.yaml)
	$(if $(PRESET),,$(call report,all,--configfile workflow/presets/photos.yaml,results/photos,report-photos.html))
	@echo; directcm show $(RESULTS)/claims/paper.csv; echo; echo "Report: $(CURDIR)/$(REPORT)$(if $(PRESET),, and $(CURDIR)/report-photos.html)"; echo "Tables and figures: $(CURDIR)/$(RESULTS)"

define newline


endef
# $(call experiments,target,overlays,results folder,report): an experiment or all, and the report that opens with their outcomes.
define experiments
	@snakemake $(1) --cores $(CORES) $(GPUS) --configfile $(2)
	@if [ ! -e $(4) ] || [ -n "$$(find $(addprefix $(3)/,why figures opening) workflow/report workflow/why.yaml -newer $(4) -type f -print -quit)" ]; then \
	snakemake $(1) --quiet all --report $(4) --configfile $(2); fi
endef
# ONLY=D: one experiment. It is the one that photographs and emoji have.
ONLY ?=
WHY := why$(if $(ONLY),_$(shell echo $(ONLY) | tr A-F a-f))
WHY_PRESETS := $(if $(PRESET),,$(if $(filter-out d D,$(ONLY)),,photos emoji))
overlays = workflow/presets/$(1).yaml workflow/presets/why_$(1).yaml

.PHONY: why
why: install  ## why CMs work: six experiments, their outcomes and figures, one of them on photographs and emoji too (ONLY=D: one; PRESET=photos: that preset alone)
	$(call experiments,$(WHY),$(if $(PRESET),$(call overlays,$(PRESET)),workflow/presets/why.yaml),$(RESULTS),report-$(WHY)$(if $(PRESET),-$(PRESET)).html)
	$(foreach preset,$(WHY_PRESETS),$(call experiments,$(WHY),$(call overlays,$(preset)),results/$(preset),report-$(WHY)-$(preset).html)$(newline))
	@echo; directcm show $(RESULTS)/why/outcomes$(WHY:why%=%).csv; echo; echo "Report: $(CURDIR)/report-$(WHY)$(if $(PRESET),-$(PRESET)).html"; echo "Tables and figures: $(CURDIR)/$(RESULTS)/why, $(CURDIR)/$(RESULTS)/figures"

.PHONY: drill
drill: install-dev  ## verbs killed with -9 at random moments, 24 times; their artefacts come out byte for byte (KILLS=4 a verb, SEED=0)
	@python -m tests.faults.drill --kills $(or $(KILLS),4) --seed $(or $(SEED),0)

# $(call finished,target): Snakemake finds nothing to do. Not piped, for a pipe that closes early ends Snakemake with an error.
finished = grep -q '^Nothing to be done' <<< "$$(snakemake $(1) --dry-run $(OVERLAY) 2>&1)"

.PHONY: record
record: install  ## have DVC take over what a run made, on a cluster perhaps (PRESET=paper; WITHOUT="targets samples"): then git commit, dvc push
	@$(if $(and $(WITHOUT),$(if $(PRESET),,default)),echo "make: WITHOUT goes with PRESET; of the default preset delete its two lines in dvc.yaml" >&2; exit 2,:)
	@if $(call finished,paper); then scope=paper target=paper; \
	elif $(call finished,all); then scope=main target=all; \
	else echo "make: $(RESULTS) is not finished: snakemake --dry-run $(OVERLAY) says what is left; finish it, then record it" >&2; exit 2; fi; \
	$(call written,$$target,$(OVERLAY),$(RESULTS),$(REPORT)); \
	$(if $(PRESET),directcm stages $$scope --configfile $(CONFIGS) $(if $(WITHOUT),--without $(WITHOUT));) \
	directcm record $(RESULTS); \
	dvc commit --quiet --force $(RECORD) || { echo "make: DVC could not take it (above); where an output is missing that dvc.yaml names, this is not the default's shape of results:" \
		"put the configuration into workflow/presets/NAME.yaml and say make record PRESET=NAME" >&2; exit 2; }
	@echo "Recorded: git add $(RECORD) $(RECORD:.yaml=.lock) && git commit, then dvc push."

.PHONY: restore
restore: install  ## bring results back from the DVC remote (PRESET=paper), and what Snakemake knows of them
	@test -f $(RECORD:.yaml=.lock) || { echo "make: nothing is recorded here, there is no $(RECORD:.yaml=.lock); check out a commit that has it, or make the results: make reproduce" >&2; exit 2; }
	@lost=; dvc pull $(RECORD) || lost=1; \
	if [ -e $(RESULTS)/record/snakemake.json ]; then directcm restore $(RESULTS); fi; \
	if [ -n "$$lost" ]; then \
		echo >&2; echo "make: the DVC remote does not have all of it (above). What is missing here, and what making it again costs:" >&2; \
		directcm plan $$(grep -q 'snakemake paper' $(RECORD) && echo paper || echo main) --configfile $(CONFIGS) >&2; \
		echo "Make it again: make reproduce$(if $(PRESET), PRESET=$(PRESET)). Name a remote: dvc remote add --default store /where/it/lies" >&2; exit 2; \
	fi

.PHONY: test
test: install-dev  ## all tests, one worker more than CORES (COVERAGE=1: and line coverage of src/; PYTEST_ARGS='-k name': some of them, one by one)
	@# A third of the time a worker waits, for SLURM or for a job that it has started.
	@python -m pytest $(or $(PYTEST_ARGS),-n $$(($(CORES) + 1)) $(if $(COVERAGE),--cov=directcm --cov-report=term:skip-covered --cov-fail-under=97))

.PHONY: quick
quick: install-dev  ## the tests that take no pipeline, browser or cluster, in a minute or so: before a commit
	@python -m pytest -n $(CORES) -m "not (pipeline or slow or browser or slurm or faults)"

.PHONY: lint
lint: install-dev  ## ruff, snakefmt, mypy, the import contract, snakemake --lint, spelling
	@ruff check .
	@ruff format --check .
	@snakefmt --check Snakefile workflow
	@mypy
	@lint-imports
	@snakemake --lint
	@git ls-files -z --cached --others --exclude-standard | xargs -0 codespell

.PHONY: format
format: install-dev  ## format Python and Snakemake files
	@ruff format .
	@ruff check --fix .
	@snakefmt Snakefile workflow

.PHONY: docs
docs: install-dev  ## schema and configuration page, from the models
	@directcm schema --out workflow/schemas/config.schema.json
	@directcm schema --out docs/configuration.md

.PHONY: publish
publish: install  ## README's and docs/results.md's tables anew from docs/data; FROM=results/embedded: that finished run's, first
	@directcm publish $(if $(FROM),--from $(FROM))

.PHONY: lock
lock: install  ## resolve the locks in envs/ anew from pyproject.toml (UPGRADE=1: the newest it allows; else what is locked stays where it can)
	@python envs/lock.py $(if $(UPGRADE),--upgrade)

.PHONY: lock-check
lock-check: install  ## try the newest versions that pyproject.toml allows, and say what breaks (touches neither .venv nor the locks)
	@python envs/lock.py --check

.PHONY: bench
bench: install  ## measure the parts that cost (writes nothing; see benchmarks/RESULTS.md)
	@python benchmarks/rates.py

.PHONY: clean
clean:  ## remove results, reports and Snakemake's records (asks nothing)
	@rm -rf results .snakemake report*.html dvc_plots

.PHONY: mutations
mutations: install-dev  ## 31 small faults, one at a time, on a copy: the tests must catch each (ONLY="holm ddim-sigma": some of them)
	@python -m tests.mutations $(if $(ONLY),--only $(ONLY))
