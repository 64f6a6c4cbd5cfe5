"""Texts that are predicted on, as the model that learnt a task wants them."""

import pytest

from prompt_tuning.data import inference_examples
from prompt_tuning.data.preprocessors import mapped
from prompt_tuning.data.registry import make_task, replace_task
from prompt_tuning.data.sources import RecordFilesDataSource

LENGTHS = {"inputs": 4, "targets": 4}


@pytest.mark.parametrize("ends", [True, False])
def test_texts_end_as_the_inputs_of_the_task(vocabulary, ends):
    source = RecordFilesDataSource({"train": ["none"]}, None)  # pyright: ignore[reportArgumentType]
    task = make_task("ends", source=source, to_text=mapped(dict), inputs_end=ends)
    replace_task("ends", task)
    try:
        assert inference_examples.inputs_end("ends") is ends
        assert inference_examples.inputs_end("no such task") and inference_examples.inputs_end(None)
    finally:
        replace_task("ends", None)
    text = "the cat sat on the mat and the dog ran"
    (example,) = inference_examples.from_strings(
        [text],
        [text],
        input_vocabulary=vocabulary,
        output_vocabulary=vocabulary,
        lengths=LENGTHS,
        inputs_end=ends,
    )
    ids = vocabulary.encode(text)
    found = example.features["encoder_input_tokens"].tolist()
    assert found == ([*ids[:3], 1] if ends else ids[:4])
    assert example.features["decoder_target_tokens"].tolist() == [*ids[:3], 1]
