"""Evaluate several prompts of one frozen model together: average, best, and majority vote."""
