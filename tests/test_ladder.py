"""The ladder that the package brings along: found from anywhere, small, and what its records say."""

import hashlib
import json
import math
import pathlib

import gin
import pytest
import seqio

from prompt_tuning import ladder
from prompt_tuning.checkpoints import digest
from prompt_tuning.checkpoints.formats import weights
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.data.vocabularies import sentencepiece_vocabulary
from prompt_tuning.launch.studies.ladder import RUNGS
from prompt_tuning.launch.studies.ship_ladder import MOST_BYTES, MOST_FILE_BYTES, SHIPPED
from tests.gin_runs import CONFIGS, resolve

LADDER = pathlib.Path(ladder.locate(ladder.LADDER))
CHECKPOINTS = [f"{rung}/{name}" for rung, names in SHIPPED.items() for name in names]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """The user's folder, in which nothing of the package lies."""
    monkeypatch.chdir(tmp_path)
    gin.clear_config()
    yield
    gin.clear_config()


def test_only_names_of_shipped_files_are_looked_up_in_the_package():
    folder = pathlib.Path(ladder.__file__).parent
    assert ladder.locate("prompt_tuning/ladder") == str(folder)
    assert ladder.locate(pathlib.PurePosixPath("prompt_tuning/ladder/pico")) == str(folder / "pico")
    others = ("gs://bucket/x", "/prompt_tuning/ladder/pico", "prompt_tuning/ladders", "ladder", "")
    assert [ladder.locate(path) for path in others] == list(others)


def test_what_ships_is_complete_and_small():
    found = {path.parent.relative_to(LADDER).as_posix() for path in LADDER.rglob("weights.json")}
    assert found == set(CHECKPOINTS) and len(found) == 16
    sizes = {path: path.stat().st_size for path in LADDER.rglob("*") if path.is_file()}
    assert 20_000_000 < sum(sizes.values()) < MOST_BYTES == 40_000_000
    assert max(sizes.values()) < MOST_FILE_BYTES == 4_000_000


def test_records_are_of_these_files_and_of_the_ladder_that_the_script_makes():
    text = json.loads((LADDER / "text.json").read_text())
    vocabulary = (LADDER / "vocabulary.model").read_bytes()
    assert text["sha256"]["vocabulary"] == hashlib.sha256(vocabulary).hexdigest()
    for name, rung in RUNGS.items():
        record = json.loads((LADDER / name / "rung.json").read_text())
        assert record["sha256"] == text["sha256"]
        assert (record["pretrain_steps"], record["adapt_steps"], record["adapt_stops"]) == (
            rung.pretrain_steps,
            rung.adapt_steps,
            rung.adapt_stops,
        )
        before, *_, after = record["checkpoints"].values()
        # What LM adaptation is for, and what it takes away.
        assert after["held_out_prefix_lm_loss"] < 0.5 * before["held_out_prefix_lm_loss"]
        assert after["held_out_span_corruption_loss"] > before["held_out_span_corruption_loss"]


def open_shipped(checkpoint):
    """The weights, and what the rung's record says of the float32 ones that they were made from."""
    source = open_source(f"{ladder.LADDER}/{checkpoint}")
    assert isinstance(source, weights.WeightsSource)
    rung, _, name = checkpoint.partition("/")
    record = json.loads((LADDER / rung / "rung.json").read_text())
    return source, record, name


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_checkpoints_are_those_that_were_measured(checkpoint):
    source, record, name = open_shipped(checkpoint)
    digests = {path: scores["digest"] for path, scores in record["checkpoints"].items()}
    assert len(set(digests.values())) == len(digests)
    # Of bfloat16 roundings: float32 weights and what ships of them have the same.
    assert source.digest == digests[name]
    assert sum(math.prod(shape) for shape, _ in source.shapes().values()) == record["params"]["all"]
    assert {str(dtype) for _, dtype in source.shapes().values()} == {"bfloat16"}
    assert source.step == int(name.rpartition("_")[2])
    if name.startswith("adapted"):
        assert source.metadata["restored_step"] == record["pretrain_steps"]
        assert source.metadata["initial_trainable_digest"] == next(iter(digests.values()))


SLOW = [pytest.param(c, marks=pytest.mark.slow) for c in CHECKPOINTS if not c.startswith("pico")]


@pytest.mark.parametrize("checkpoint", [*(c for c in CHECKPOINTS if c.startswith("pico")), *SLOW])
def test_arrays_are_those_of_the_digest(checkpoint):
    source, *_ = open_shipped(checkpoint)
    assert digest.params_digest({p: source.read(p) for p in source.shapes()}) == source.digest


@pytest.mark.parametrize("rung", ["pico", "mini"])
def test_a_rung_and_its_vocabulary_are_used_without_naming_a_folder(rung):
    path = f"{ladder.LADDER}/{rung}/adapted/checkpoint_1200"
    files = [f"{CONFIGS}/ladder/{rung}.gin", f"{CONFIGS}/ladder/prompt.gin"]
    settings = {
        "INITIAL_CHECKPOINT_PATH": f"'{path}'",
        "MIXTURE_OR_TASK_NAME": "'synthetic_rte'",
        "CLASS_LABELS": "['yes', 'no']",
        "MODEL_DIR": "'/run'",
    }
    resolved = resolve(files, settings)
    model = resolved.arguments()["model"]
    assert resolved.warnings == ()
    # Built by gin, the vocabulary is that of `sentencepiece_vocabulary`: both name it as docs do.
    vocabulary = model.output_vocabulary
    assert isinstance(vocabulary, seqio.SentencePieceVocabulary)
    assert vocabulary == sentencepiece_vocabulary(
        f"{ladder.LADDER}/vocabulary.model", extra_ids=100
    )
    assert vocabulary.vocab_size == 2048 == model.config.vocab_size
    assert "who has the lamp" in vocabulary.decode(vocabulary.encode("who has the lamp"))
    expected = {
        name: leaf.shape for name, leaf in model.param_shapes.items() if "/prompt/" not in name
    }
    assert {n: s for n, (s, _) in open_source(path).shapes().items()} == expected
