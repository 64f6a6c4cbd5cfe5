"""The commands, each named as it is typed: `prompt-tuning NAME`."""
