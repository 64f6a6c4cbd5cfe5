"""C4's tasks under the names of T5 and of the authors."""

import gzip
import importlib
import json

import numpy as np
import pytest
import seqio

from prompt_tuning.data import batches as datasets
from prompt_tuning.data import dataset_checks
from prompt_tuning.tasks import lm_adaptation
from tests.helpers import ENGLISH


@pytest.mark.usefixtures("vocabulary")
def test_the_authors_module_registers_them():
    importlib.import_module("prompt_tuning.data.c4")
    assert {
        "c4_v220_prefix_lm",
        "c4_v220_span_corruption",
        "c4_v220_bart_text_infilling",
        "c4_v220_bart_token_deletion",
    } <= set(seqio.TaskRegistry.names())
    for name in lm_adaptation.TASKS:
        task = seqio.TaskRegistry.get(name)
        assert task.splits == ("train", "validation") and not task.metric_fns
        assert all(feature.add_eos for feature in task.output_features.values())


def test_a_shard_of_c4_becomes_prefixes_and_continuations(tmp_path, vocabulary):
    folder = tmp_path / "c4" / "en"
    folder.mkdir(parents=True)
    lines = "".join(json.dumps({"text": text, "url": "u"}) + "\n" for text in ENGLISH)
    path = folder / "c4-validation.00000-of-00008.json.gz"
    path.write_bytes(gzip.compress(lines.encode()))
    cfg = datasets.DatasetConfig(
        "c4_v220_prefix_lm",
        {"inputs": 64, "targets": 64},
        split="validation",
        batch_size=8,
        module="prompt_tuning.tasks.lm_adaptation",
        data_dir=str(tmp_path),
    )
    dataset_checks.check_dataset(cfg)
    batches = list(datasets.eval_batches(cfg))
    sides = [
        np.concatenate([batch[name] for batch in batches])
        for name in ("encoder_input_tokens", "decoder_target_tokens")
    ]
    texts = [vocabulary.decode([t for t in (*a, *b) if t > 1]) for a, b in zip(*sides, strict=True)]
    assert texts[: len(ENGLISH)] == [vocabulary.decode(vocabulary.encode(t)) for t in ENGLISH]
