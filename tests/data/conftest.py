"""What tasks read that is set for the whole process: no test leaves it behind."""

import pytest

from prompt_tuning.data import context
from prompt_tuning.data.vocabularies import sentencepiece_vocabulary


@pytest.fixture(autouse=True)
def clean_context():
    """Unsets the run's vocabulary and data folder after each test."""
    yield
    context.set_context()


@pytest.fixture
def vocabulary(tiny_vocabulary):
    """The run's vocabulary."""
    vocabulary = sentencepiece_vocabulary(str(tiny_vocabulary))
    context.set_context(vocabulary=vocabulary)
    return vocabulary
