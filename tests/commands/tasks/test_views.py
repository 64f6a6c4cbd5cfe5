"""Views of tasks whose objective makes examples of a given length."""

import pytest
import seqio

from prompt_tuning.commands.tasks import stats, views
from prompt_tuning.data import context
from prompt_tuning.data.text.language_modeling import from_text_files
from tests.data.local_data import write_jsonl
from tests.helpers import ENGLISH

NAME = "task_views_test"
LENGTHS = {"inputs": 16, "targets": 16}


@pytest.fixture
def language_task(tmp_path, tiny_vocabulary):
    context.set_context(seqio.SentencePieceVocabulary(str(tiny_vocabulary)))
    text = write_jsonl(tmp_path / "text.txt", ENGLISH[:20])
    yield seqio.TaskRegistry.get(from_text_files(NAME, train=str(text)))
    context.set_context()
    seqio.TaskRegistry.remove(NAME)


def test_an_objective_gets_the_lengths(language_task):
    assert views.whole_lengths(language_task, LENGTHS) == LENGTHS
    (shown,) = views.show_examples(language_task, "train", lengths=LENGTHS, count=1)
    assert shown["raw"] == {"text": ENGLISH[0]} and shown["examples"]
    for example in shown["examples"]:
        assert max(map(len, example["ids"].values())) <= 16


def test_stats_of_free_text_have_no_labels(language_task):
    lengths = {name: [length] for name, length in LENGTHS.items()}
    figures = stats.measure(language_task, "train", lengths=lengths)
    assert figures["labels"] is None or len(figures["labels"]) <= stats.MAX_LABELS
    assert figures["features"]["targets"]["tokens"]["max"] <= 16
    assert figures["features"]["targets"]["truncated"] == {"16": 0.0}


def test_a_plain_task_comes_whole():
    task = seqio.Task(
        "plain",
        source=seqio.FunctionDataSource(
            lambda split, shuffle_files, seed=None: None, splits=["train"]
        ),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim],
        output_features={},
    )
    assert views.whole_lengths(task, LENGTHS) is None
