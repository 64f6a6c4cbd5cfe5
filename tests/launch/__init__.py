"""Tests of launchers and benchmarks."""
