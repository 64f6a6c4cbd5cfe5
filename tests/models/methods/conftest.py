"""The reference model, in which methods act."""

from tests.models.conftest import reference

__all__ = ["reference"]
