"""Gin: text in, checked objects out. The only home of gin."""
