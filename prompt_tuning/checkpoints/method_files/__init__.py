"""Every reader and writer of what a method added to a model (`models/methods/method.py`), once."""
