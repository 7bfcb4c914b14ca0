# Lab hosts by hand: `python3 -m lab --help` knows more.
HOST ?= node1

demo: $(VENV) ## three hosts with their own kernels, the overlay on them, and the proof that it carries packets
	@python3 -m lab demo

demo-shell: ## a shell on a host of the demo: HOST=node2
	@python3 -m lab shell demo $(HOST)

demo-down: ## end the demo's hosts
	@python3 -m lab down demo

.PHONY: demo demo-shell demo-down
