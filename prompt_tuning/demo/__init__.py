"""The demo: a prompt is tuned in miniature, and what happens is told in plain words."""
