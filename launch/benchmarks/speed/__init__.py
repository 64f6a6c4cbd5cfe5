"""Ours beside PEFT and transformers, on the same work in one run: `make bench`."""
