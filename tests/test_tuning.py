"""From examples to a tuned prompt: on a Hugging Face folder of a rung's sizes, and what is refused."""

import json
import shutil

import numpy as np
import pytest

import prompt_tuning
from prompt_tuning import ladder, train
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.prompt_files.read import load_prompt
from prompt_tuning.config import files, model_files, resolve
from prompt_tuning.errors import ConfigError, DataError
from prompt_tuning.predict import load_run
from tests.checkpoints.huggingface_writer import make_tensors, write_model
from tests.helpers import REPO

PICO = f"{ladder.LADDER}/pico/adapted/checkpoint_1200"
# Sizes of the writer's model -> those of pico.
SIZES = {10: 2048, 6: 48, 8: 48, 5: 96}
NOTEBOOK = REPO / "notebooks/five_lines.ipynb"
EXAMPLES = [
    {"inputs": f"sentence: {word} {number}", "targets": answer}
    for number in range(10)
    for word, answer in (("good", "positive"), ("bad", "negative"))
]
LABELS = ["positive", "negative"]


def write_pico(folder):
    """A random model of pico's sizes, with its vocabulary beside it."""
    rng = np.random.default_rng(0)
    shapes = {
        name: [SIZES[n] if n in SIZES else n for n in x.shape] for name, x in make_tensors().items()
    }
    first, second = "decoder.block.0.", "decoder.block.1."
    of_layer = {n: x for n, x in shapes.items() if n.startswith(first) and "relative" not in n}
    shapes |= {second + name.removeprefix(first): shape for name, shape in of_layer.items()}
    tensors = {n: rng.normal(scale=0.1, size=x).astype(np.float32) for n, x in shapes.items()}
    sizes = {"vocab_size": 2048, "d_model": 48, "d_kv": 12, "d_ff": 96, "num_decoder_layers": 2}
    write_model(folder, tensors, **sizes)
    shutil.copy(ladder.locate(f"{ladder.LADDER}/vocabulary.model"), folder / "spiece.model")
    return str(folder)


def prompt_of(run):
    return load_prompt(f"{run}/numpy_checkpoints/checkpoint_2/encoder.prompt.prompt.prompt")[0]


def test_examples_become_a_prompt_a_score_and_a_run(tmp_path):
    folder = str(tmp_path / "run")
    given = {
        "labels": LABELS,
        "steps": 2,
        "batch_size": 8,
        "prompt_length": 3,
        "settings": {"EVAL_STEPS": 0},
    }
    model = write_pico(tmp_path / "model")
    tuned = prompt_tuning.tune(model, EXAMPLES, model_dir=folder, **given)
    assert tuned.path == folder and tuned.metrics == {"accuracy": tuned.score}
    assert tuned.predict(["sentence: good 11"]) == load_run(folder).predict(["sentence: good 11"])
    lines = (tmp_path / "run/examples/validation.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [EXAMPLES[9], EXAMPLES[19]]
    assert prompt_of(folder).shape == (3, 48)

    with pytest.raises(ConfigError, match="model_dir holds a run on other examples"):
        prompt_tuning.tune(model, EXAMPLES[:-1], model_dir=folder, **given)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"inputs": "x"}, r"examples\[10\] is not an example: got .*'x'.*'inputs' and 'targets'"),
        (
            {"inputs": 3, "targets": "positive"},
            r"examples\[10\] has a value of 'inputs' that is no",
        ),
        ({"inputs": "x", "targets": "so-so"}, r"'targets' of examples\[10\] is unknown: .*so-so"),
        ("a text", r"examples\[10\] is not an example: got .*a text"),
    ],
)
def test_a_wrong_example_is_named(row, text):
    with pytest.raises((DataError, ConfigError), match=text):
        prompt_tuning.tune("mini", [*EXAMPLES[:10], row], labels=LABELS)


def test_what_is_to_be_scored_by_must_be_there():
    with pytest.raises(DataError, match=r"no examples for validation: got \{'train': 9"):
        prompt_tuning.tune("mini", EXAMPLES[:9])


def test_a_model_of_other_sizes_has_no_file(tmp_path):
    with pytest.raises(ConfigError, match="NUM_EMBEDDINGS = 10, EMBED_DIM = 6, MLP_DIM = 5, NUM_E"):
        prompt_tuning.tune(str(write_model(tmp_path / "model", make_tensors())), EXAMPLES)


@pytest.mark.parametrize("rung", model_files.RUNGS)
def test_a_rung_is_known_by_its_sizes(rung):
    source = open_source(PICO.replace("pico", rung))
    assert model_files.find_model_file(source) == f"prompt_tuning/configs/ladder/{rung}.gin"


@pytest.mark.slow
@pytest.mark.entry
def test_the_notebook_tunes_a_prompt_and_its_config_repeats_it(tmp_path, monkeypatch):
    """Every cell, on the smallest rung."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient is in the extra [test]")
    nbformat = pytest.importorskip("nbformat", reason="nbformat comes with nbclient")
    read = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in read.cells)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (cell,) = (c for c in read.cells if c.cell_type == "code" and ".tune(" in c.source)
    for shown, small in (('"mini"', '"pico"'), ("steps=100", "steps=2")):
        assert shown in cell.source
        cell.source = cell.source.replace(shown, small)
    nbclient.NotebookClient(read, timeout=300, kernel_name="python3").execute()
    texts = ["".join(o.get("text", "") for o in cell.get("outputs", [])) for cell in read.cells]
    assert texts[6].count("sentence: ") == 6
    (folder,) = tmp_path.glob("prompt_tuning_*")
    again = str(tmp_path / "again")
    parsed = files.read([f"{folder}/config.gin"], [(f"MODEL_DIR = {again!r}", "MODEL_DIR")])
    resolve.resolve(parsed, train.train, command="train").run()
    np.testing.assert_array_equal(prompt_of(again), prompt_of(folder))
