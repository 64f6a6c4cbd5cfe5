"""The ladder in miniature: text, vocabulary, pre-training, LM adaptation, building it again, and a prompt."""

import json

import pytest

from prompt_tuning import train
from prompt_tuning.checkpoints.formats import run as run_format
from prompt_tuning.config import files as config_files
from prompt_tuning.config import resolve
from prompt_tuning.launch.studies import ladder
from tests.helpers import ENGLISH

TEXT = ladder.Text(num_paragraphs=400, num_held_out=60, vocab_size=300, vocab_documents=400)
TINY = {
    "NUM_EMBEDDINGS": 512,
    "NUM_HEADS": 2,
    "HEAD_DIM": 8,
    "EMBED_DIM": 16,
    "MLP_DIM": 16,
    "NUM_ENCODER_LAYERS": 1,
    "NUM_DECODER_LAYERS": 1,
    "BATCH_SIZE": 8,
    "EVAL_STEPS": 1,
}
RUNG = ladder.Rung("pico", pretrain_steps=3, adapt_steps=4, adapt_stops=2)


def write_prose(folder):
    folder.mkdir()
    (folder / "book.txt").write_text("\n".join(ENGLISH))
    return [str(folder / "*.txt")]


def test_text_and_vocabulary_are_the_same_wherever_they_are_made(tmp_path):
    made = [
        ladder.make_text(tmp_path / name, TEXT, write_prose(tmp_path / f"prose_{name}"))
        for name in ("a", "b")
    ]
    assert made[0]["sha256"] == made[1]["sha256"]
    assert made[0]["prose"] == ["book.txt"]
    # What is there is not made again.
    assert ladder.make_text(tmp_path / "a", TEXT, []) == made[0]


@pytest.mark.slow
def test_a_rung_is_pretrained_adapted_rebuilt_and_prompted(tmp_path, capsys):
    inputs = ladder.make_text(tmp_path, TEXT, write_prose(tmp_path / "prose"))
    made = ladder.make_rung(tmp_path, RUNG, inputs, **TINY)
    names = ["pretrained/checkpoint_3", "adapted/checkpoint_2", "adapted/checkpoint_4"]
    assert list(made["checkpoints"]) == names
    for scores in made["checkpoints"].values():
        assert 0 < scores["held_out_prefix_lm_loss"] < 50
        assert 0 < scores["held_out_span_corruption_loss"] < 50
    assert made["params"]["all"] > made["params"]["non_embedding"] > 0
    assert json.loads((tmp_path / "pico" / "rung.json").read_text()) == made

    # The adaptation went on from the optimizer of the pre-training, and says what it came from.
    metadata = run_format.read_metadata(tmp_path / "pico" / names[2])
    assert metadata["restored_step"] == 3
    assert metadata["initial_checkpoint_path"] == str(tmp_path / "pico" / names[0])
    assert metadata["initial_trainable_digest"] == made["checkpoints"][names[0]]["digest"]
    assert "Optimizer state restored" in capsys.readouterr().out

    # Built from nothing a second time, elsewhere, it has the same weights.
    files = inputs["files"]
    settings = {
        **TINY,
        "VOCABULARY_FILE": files["vocabulary"],
        "TRAIN_TEXT": files["train"],
        "VALIDATION_TEXT": files["validation"],
        "MODEL_DIR": str(tmp_path / "again"),
    }
    rebuilt = {"MODEL_DIR": str(tmp_path / "rebuilt"), "TRAIN_STEPS": RUNG.pretrain_steps}
    ladder.resolve("pico", "pretrain", {**settings, **rebuilt}).run()
    settings["INITIAL_CHECKPOINT_PATH"] = str(tmp_path / "rebuilt" / "checkpoint_3")
    ladder.resolve("pico", "adapt", {**settings, "TRAIN_STEPS_RELATIVE": 4}).run()
    again = run_format.read_metadata(tmp_path / "again" / "checkpoint_4")
    assert again["initial_trainable_digest"] == metadata["initial_trainable_digest"]

    # A prompt is tuned on the frozen result, whose digest is recorded.
    more = {
        "INITIAL_CHECKPOINT_PATH": str(tmp_path / "again" / "checkpoint_4"),
        "MODEL_DIR": str(tmp_path / "prompt"),
    }
    kept = {k: v for k, v in settings.items() if not k.endswith("_TEXT")}
    results = tune_prompt({**kept, **more})
    assert 0.0 <= results["synthetic_sentiment"]["accuracy"] <= 100.0
    prompted = run_format.read_metadata(tmp_path / "prompt" / "checkpoint_2")
    assert prompted["frozen_digest"] == made["checkpoints"][names[2]]["digest"]


def tune_prompt(settings):
    """What a run of ladder/prompt.gin of two steps returns."""
    settings = {
        **settings,
        "MIXTURE_OR_TASK_NAME": "synthetic_sentiment",
        "CLASS_LABELS": ["negative", "positive"],
        "PROMPT_LENGTH": 4,
        "TRAIN_STEPS": 2,
        "EVALUATOR_NUM_EXAMPLES": 8,
        "TASK_FEATURE_LENGTHS": {"inputs": 48, "targets": 12},
        "prompt_init/prompts.from_embedded_list.population_size": 100,
    }
    bindings = [(f"{k} = {v!r}", f"--gin.{k}={v!r}") for k, v in settings.items()]
    folder = "prompt_tuning/configs/ladder"
    parsed = config_files.read([f"{folder}/pico.gin", f"{folder}/prompt.gin"], bindings, [])
    return resolve.resolve(parsed, train.train, command="train").run()
