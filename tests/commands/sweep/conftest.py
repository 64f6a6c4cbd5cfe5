"""What every sweep of these tests reads: made once."""

import pytest

from tests import tiny_run


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A tiny model's vocabulary, checkpoint and data; no test writes to them."""
    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"))
