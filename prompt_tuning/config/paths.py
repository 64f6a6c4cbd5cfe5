"""Paths in gin, which cannot join texts."""


def join(folder: str, name: str) -> str:
    """Returns the path of a file or folder below another; for gin, which cannot join texts.

    Args:
      folder: Local or in an object store.
      name: What is below it, with `/` between parts.
    """
    return f"{folder.rstrip('/')}/{name}"
