"""Launchers and benchmarks."""
