"""What the command line does around the run."""

import gc

import pytest

from prompt_tuning.config import command_line


@pytest.fixture
def thawed():
    """Lets go of what a test froze."""
    yield
    gc.unfreeze()


def test_no_garbage_is_looked_for_while_a_run_is_imported(thawed):
    with pytest.raises(ImportError), command_line._importing("not_imported:run"):
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


def test_a_second_run_in_the_process_freezes_nothing(thawed):
    with command_line._importing("gc:collect"):
        assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_what_was_imported_is_not_looked_at_again(thawed):
    with command_line._importing("not_imported:run"):
        pass
    assert gc.isenabled() and gc.get_freeze_count() > 0
