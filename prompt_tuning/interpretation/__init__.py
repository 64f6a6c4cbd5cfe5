"""What a tuned prompt is near to: the words of the frozen model, where it started, and the prompts of other tasks."""
