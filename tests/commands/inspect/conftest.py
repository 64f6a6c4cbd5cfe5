"""What a tiny run reads, made once."""

import pytest

from tests import tiny_run


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"))
