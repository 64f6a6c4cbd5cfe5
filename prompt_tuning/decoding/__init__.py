"""Autoregressive decoding: functions of a logits function and a cache, never of a model."""
