# Lab hosts by hand: `python3 -m lab --help` knows more.
HOST  ?= node1
STATE ?= present
WHERE ?= auto

demo: $(VENV) ## three hosts with their own kernels, the overlay on them, and the proof that it carries packets
	@python3 -m lab demo

demo-shell: ## a shell on a host of the demo: HOST=node2
	@python3 -m lab shell demo $(HOST)

demo-down: ## end the demo's hosts
	@python3 -m lab down demo

lab: $(VENV) ## a system of docs/labs.md, made, watched and proved: LAB=bridge; STATE=absent removes it
	@python3 -m lab play --state=$(STATE) --where=$(WHERE) -- $(LAB) $(ARGS)

lab-shell: ## a shell on the machine of the labs that this kernel cannot make
	@python3 -m lab shell labs node1

lab-down: ## end that machine
	@python3 -m lab down labs

.PHONY: demo demo-shell demo-down lab lab-shell lab-down
