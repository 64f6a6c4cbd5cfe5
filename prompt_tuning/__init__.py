"""Soft prompts for frozen T5 models in JAX, with T5X's names, files and checkpoints."""
