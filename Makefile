# Two commands do everything on a fresh Debian 12 or Ubuntu 24.04 that has python3, python3-venv,
# g++, make, perl and git: `make demo` and `make test`. The rest comes from the Python registry.

PYTHON ?= python3
VENV := build/venv
BIN := $(VENV)/bin
STAMP := $(VENV)/vmxlab.stamp
JOBS ?= 2

# The build tools call `python` by name (verilated.mk), so the environment's folder leads PATH.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test lint format setup calibrate speed synth timing clean random race guests linux prove mutate split
.DEFAULT_GOAL := help

help:
	@echo "make demo       the same guests natively, under trap-and-emulate and under VMX, side by side"
	@echo "make test       lint, import rules and all tests"
	@echo "make lint       lint and import rules only"
	@echo "make format     let ruff format the sources"
	@echo "make setup      make $(VENV) (the other targets do it when needed)"
	@echo "make calibrate  measure the constants of the VMM's cost model"
	@echo "make speed      measure the simulation's own speed on this computer"
	@echo "make synth      synthesize the SoC for ECP5 and print its size"
	@echo "make timing     place and route the hart on an ECP5 and print its fastest clock"
	@echo "make random     run 20 000 random programs on RTL and golden model (hours)"
	@echo "make race       run 2 000 programs on the RTL while a bus master races the hart (minutes)"
	@echo "make guests     run 5 000 random guests with VMX on RTL and golden model (minutes)"
	@echo "make linux      boot Debian's Linux kernel on the RTL to our own init (an hour or more)"
	@echo "make split      compare the simulator with one built without Verilator's splitting (long)"
	@echo "make prove      prove units of the RTL by induction (minutes)"
	@echo "make mutate     flip conditions of the RTL and see which ones a test notices (an hour)"
	@echo "make clean      remove everything built, $(VENV) included"

demo: $(STAMP)
	@$(BIN)/python -m sim.cli.demo

test: lint
	@$(BIN)/python -m pytest -q -n $(JOBS) $(TESTS)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

calibrate: $(STAMP)
	@$(BIN)/python -m sim.calibrate

speed: $(STAMP)
	@$(BIN)/python -m sim.speed

synth: $(STAMP)
	@$(BIN)/python -m fpga.synthesis

timing: $(STAMP)
	@$(BIN)/python -m fpga.timing

# 20 000 random programs on the RTL and the golden model; RANDOM_FLAGS="--first 500 --count 100".
random: $(STAMP)
	@$(BIN)/python -m sim.random_programs $(RANDOM_FLAGS)

# Two programs per seed; RACE_FLAGS="--first 500 --count 100".
race: $(STAMP)
	@$(BIN)/python -m tests.racing $(RACE_FLAGS)

# Random VMCSs and guests; GUESTS_FLAGS="--first 500 --count 100", or "--hostile".
guests: $(STAMP)
	@$(BIN)/python -m tests.machine.vmx $(GUESTS_FLAGS)

# LINUX_FLAGS="--config small" for another configuration, whose result is shown but not recorded.
linux: $(STAMP)
	@$(BIN)/python -m sim.linux $(LINUX_FLAGS)

# PROVE_FLAGS="--only queue --without-faults"; see docs/testing.md.
prove: $(STAMP)
	@$(BIN)/python -m tests.proofs $(PROVE_FLAGS)

# 240 flipped conditions; MUTATE_FLAGS="--seed 2 --count 400 --record".
mutate: $(STAMP)
	@$(BIN)/python -m tests.mutation $(MUTATE_FLAGS)

# SPLIT_FLAGS="--only hello" for some guests; --record writes docs/data/split.json.
split: $(STAMP)
	@$(BIN)/python -m tests.split $(SPLIT_FLAGS)

setup: $(STAMP)

# Every missing tool is one line, found before anything is built.
$(STAMP): pyproject.toml constraints.txt
	@for tool in "$(PYTHON)" g++ make perl git; do \
	    command -v "$$tool" >/dev/null || { \
	        echo "vmxlab: $$tool is missing; install python3 python3-venv g++ make perl git" >&2; \
	        exit 1; }; \
	done
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "vmxlab: $(PYTHON) is too old; Python 3.11 or newer is needed" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "vmxlab: Python's venv module is missing; install python3-venv" >&2; exit 1; }
	@mkdir -p build
	@echo "Setting up $(VENV) (once; a minute or two, log in build/setup.log) ..."
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV) >build/setup.log 2>&1 || { \
	    echo "vmxlab: $(VENV) could not be made; see build/setup.log" >&2; exit 1; }
	@$(BIN)/python -m pip install -c constraints.txt -e '.[test]' >build/setup.log 2>&1 || { \
	    echo "vmxlab: the Python packages could not be installed (is the network up?);" \
	        "see build/setup.log" >&2; exit 1; }
	@touch $@

clean:
	rm -rf build
