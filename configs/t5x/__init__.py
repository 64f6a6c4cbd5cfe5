"""Gin files. A package, because gin inside T5X looks for `prompt_tuning/configs/...` among packages."""
