"""The training step and what it needs: state, losses, optimizers, schedules, summaries."""
