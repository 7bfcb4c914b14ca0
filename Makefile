# podnet.overlay. `make` alone lists what there is to run.

PYTHON   ?= /usr/bin/python3
ARGS     ?=
MINUTES  ?= 30
ROOT     := $(filter 0,$(shell id -u))
VENV     := .venv/.done
VERSION  := $(shell sed -n 's/^version: //p' galaxy.yml)
ARTIFACT := .cache/podnet-overlay-$(VERSION).tar.gz

QUICK := $(if $(ROOT),kernel) ruff mypy oldest yamllint ansible-lint unit
FULL  := molecule-ipip kernel-ipip life $(if $(ROOT),kernel) labs $(if $(ROOT),kernel-old) molecule-default sanity units importer \
	$(filter-out kernel,$(QUICK)) artifact docs changelog # the longest first: two run at a time

# What the quick gates need of Debian or Ubuntu, and what virtual machines and containers need besides.
QUICK_PACKAGES := busybox-static containernetworking-plugins dbus git iproute2 iptables iputils-ping kmod netavark nftables python3 python3-venv \
	tcpdump ufw
PACKAGES := $(QUICK_PACKAGES) aardvark-dns debian-archive-keyring e2fsprogs fakeroot iperf3 mmdebstrap openssh-client podman qemu-system-x86 \
	qemu-utils runc uidmap

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export HYPOTHESIS_STORAGE_DIRECTORY := $(CURDIR)/.cache/hypothesis
export MOLECULE_GLOB := molecule/*/molecule.yml

.DEFAULT_GOAL := help
.SUFFIXES:
.DELETE_ON_ERROR:

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(filter-out Makefile,$(MAKEFILE_LIST)) Makefile

check: $(VENV) ## the quick gates: lint, types, units, kernel tests; ten minutes
	@tests/gates/run $(QUICK)

test: system .cache/importer/.done build ## every gate, virtual machines included; forty minutes
	@tests/gates/run $(FULL)

build: $(VENV) ## the artifact, in .cache
	@ansible-galaxy collection build --force --output-path .cache >.cache/build.log 2>&1 || { cat .cache/build.log; exit 1; }

soak: system $(VENV) ## all tests that need IPIP, then unit and kernel tests for MINUTES=30, each round with new examples
	@SOAK=1 tests/gates/kernel-ipip && SOAK=1 tests/gates/life
	@end=$$(($$(date +%s) + $(MINUTES) * 60)); \
	while [ $$(date +%s) -lt $$end ]; do HYPOTHESIS_PROFILE=soak pytest tests/unit $(if $(ROOT),tests/kernel) $(ARGS) || exit 1; done

bench: system $(VENV) ## how fast: converge against ping and hand-written tasks, routes against ip -batch
	@PYTHONPATH=$(CURDIR):$(CURDIR)/.collections python -m tests.bench $(ARGS)

format: $(VENV) ## bring Python into shape: what ruff can fix by itself
	@ruff check --quiet --fix $(ARGS) && ruff format --quiet

clean: ## remove what was built here; images of lab hosts stay
	rm -rf .venv .cache .hypothesis

system: ## install what is missing of Debian's packages (as root, else say which)
	@tests/gates/system $(PACKAGES)

-include lab/lab.mk

# The gates. Each runs alone too, with its own arguments: make unit ARGS='-k leases -x'

ruff: $(VENV) ## lint and format of Python
	@ruff check --quiet --output-format=concise $(ARGS) && ruff format --check --quiet --diff

mypy: $(VENV) ## types, strictly
	@mypy $(ARGS)

oldest: $(VENV) ## what runs on hosts keeps to Python 3.9
	@vermin --quiet --no-tips --target=3.9- --violations plugins

yamllint: $(VENV) ## YAML
	@yamllint --strict $(ARGS) .

ansible-lint: $(VENV) ## roles, playbooks and molecule, profile production
	@ansible-lint -q --nocolor $(ARGS)

unit: $(VENV) ## unit and property tests
	@pytest tests/unit tests/lab $(ARGS)

kernel: $(VENV) .cache/docker ## tests against this kernel, as root, with the newest pyroute2
	@pytest tests/kernel $(ARGS)

# What asks the kernel by pyroute2; the rest of the tests would tell the same twice.
BY_PYROUTE2 := $(patsubst %,tests/kernel/test_%.py,backends bridge examples firewall ipip netns playbooks route sysctl topology veth)
kernel-old: $(VENV) .cache/pyroute2-0.7.2 ## the engine's with Debian 12's pyroute2
	@PYTHONPATH=$(CURDIR)/.cache/pyroute2-0.7.2 pytest $(BY_PYROUTE2) $(ARGS)

kernel-ipip: $(VENV) ## the tests that need IPIP, on a virtual machine
	@tests/gates/kernel-ipip $(ARGS)

life: $(VENV) ## what life does to hosts: faults, kills, a teardown; on virtual machines
	@tests/gates/life $(ARGS)

labs: $(VENV) ## the labs: each made, proved, made again, removed; here and on a virtual machine
	@pytest tests/labs $(ARGS)

sanity: $(ARTIFACT) ## ansible-test sanity, offline but for PyPI
	@tests/gates/ansible-test $(ARTIFACT) sanity $(ARGS)

units: $(ARTIFACT) ## ansible-test units
	@tests/gates/ansible-test $(ARTIFACT) units $(ARGS)

docs: $(VENV) ## documentation of modules, roles and the collection
	@antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=self .

changelog: $(VENV) ## fragments and changelog
	@antsibull-changelog lint

artifact: $(ARTIFACT) ## the built artifact, installed away from here, runs
	@tests/gates/artifact $(ARTIFACT)

importer: $(ARTIFACT) .cache/importer/.done ## what Galaxy's importer says of the artifact
	@tests/gates/importer $(ARTIFACT)

# An interrupted scenario puts its hosts away too.
molecule = trap 'molecule destroy -s $1; exit 1' INT TERM; molecule test -s $1 $(ARGS)

molecule-default: $(VENV) ## the product on containers
	@$(call molecule,default)

molecule-ipip: $(VENV) ## the product on virtual machines, with real IPIP
	@$(call molecule,ipip)

# What the gates stand on.

$(VENV): tests/requirements.txt tests/unit/requirements.txt
	@tests/gates/system $(QUICK_PACKAGES) && echo "installing Python packages into .venv, a minute or two" && $(PYTHON) -m venv .venv && \
	.venv/bin/pip install -qq -r $< && touch $@

.cache/importer/.done: tests/gates/importer-requirements.txt
	@tests/gates/system $(QUICK_PACKAGES) && echo "installing Galaxy's importer, a minute" && $(PYTHON) -m venv .cache/importer && \
	.cache/importer/bin/pip install -qq -r $< && touch $@

.cache/docker:
	@tests/gates/docker $@

.cache/pyroute2-0.7.2: $(VENV)
	@pip install -qq --no-deps --target $@ pyroute2==0.7.2

# The folders are named one by one, because the link in .collections is a loop.
SHIPPED := $(shell find *.md *.rst LICENSE galaxy.yml changelogs docs inventories meta playbooks plugins roles tests \
	-type f -not -name '*.pyc' 2>/dev/null)
$(ARTIFACT): $(VENV) $(SHIPPED)
	@$(MAKE) --no-print-directory build

.PHONY: help check test build soak bench format clean system $(FULL) kernel kernel-old
