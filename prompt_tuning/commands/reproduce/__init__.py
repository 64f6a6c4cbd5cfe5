"""Measure published numbers again, expected beside got."""
