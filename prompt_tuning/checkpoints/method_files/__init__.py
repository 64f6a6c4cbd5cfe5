"""Every reader and writer of what a method added to a model (`methods/method.py`), once."""
