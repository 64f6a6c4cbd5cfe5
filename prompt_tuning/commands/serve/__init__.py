"""Answer over HTTP: one frozen model, any number of prompts."""
