"""Nearest words, clusters and class labels of a tuned prompt, over time too."""
