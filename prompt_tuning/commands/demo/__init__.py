"""Prompt tuning explained by doing it, on a small T5 that comes with the package."""
