"""The same as for all tests of data."""

from tests.data.conftest import clean_context, vocabulary  # noqa: F401  (fixtures)
