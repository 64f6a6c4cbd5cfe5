"""The start of a run is made again as the run made it; a start from another prompt is exact and recorded."""

import hashlib
import shutil
import types

import jax
import numpy as np
import pytest
import seqio

from prompt_tuning.checkpoints import paths
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.prompt_files import write
from prompt_tuning.commands.inspect import frozen_tokens
from prompt_tuning.commands.inspect.origin import Origin, find_origin
from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.models.t5gemma.t5gemma import T5Gemma
from prompt_tuning.params.names import PROMPT_PATH, PROMPT_REGEX
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.prompts.initializers import ClassLabels, FromFile, SampledVocab, Uniform
from prompt_tuning.run import start as initialization
from prompt_tuning.training.adafactor import Adafactor
from tests.models.t5gemma.tiny import tiny_t5gemma, write_t5gemma
from tests.tiny_run import EMB_DIM, run_config

SEED, LENGTH = 5, 4

pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")


@pytest.fixture(scope="module")
def source(inputs):
    return open_source(inputs.checkpoint)


def initialize(spec, source, model_dir, dtype="float32"):
    """The start of a run, and what it records with its prompts."""
    vocabulary = seqio.SentencePieceVocabulary(str(source.path.parent / "spiece.model"))
    if source.kind == "huggingface":
        module = T5Gemma(tiny_t5gemma(), PromptConfig(LENGTH, spec))
    else:
        module = T5(run_config(dropout_rate=0.0), PromptConfig(LENGTH, spec))
    model = EncoderDecoderModel(module, vocabulary, vocabulary)
    start = initialization.initialize(
        model,
        PjitPartitioner(),
        Adafactor().make(lambda step: 0.3),
        source=source,
        frozen_dtype=dtype,
        trainable_regex=PROMPT_REGEX,
        checkpointer=Checkpointer(model_dir),
        rng=jax.random.key(SEED),
    )
    prompt = np.asarray(start.state.trainable["encoder"]["prompt"]["prompt"]["prompt"])
    info = {**start.metadata, "seed": SEED, "prompt_length": LENGTH, "model_dir": str(model_dir)}
    return model, start, prompt, info


@pytest.mark.parametrize(
    ("spec", "dtype"),
    [
        (ClassLabels(["Positive words", "good"], 200), "float32"),
        (SampledVocab(200), "bfloat16"),
        (SampledVocab(200), "int8"),
        (Uniform(0.5), "float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_start_is_made_again_bit_for_bit(source, tmp_path, spec, dtype):
    model, _, prompt, info = initialize(spec, source, tmp_path / "run", dtype)
    description = types.SimpleNamespace(model=model)
    origin = Origin(info, None, description)  # pyright: ignore[reportArgumentType]
    table = frozen_tokens.read_table(source, EMB_DIM)
    made = origin.start(table, source, model.input_vocabulary)
    assert made is not None
    np.testing.assert_array_equal(made.view(np.uint32), prompt.view(np.uint32))
    assert origin.labels == (("Positive words", "good") if isinstance(spec, ClassLabels) else ())


def test_a_start_of_scaled_rows_is_rounded_as_the_run_did(inputs, tmp_path):
    shutil.copy(inputs.checkpoint.parent / "spiece.model", tmp_path)
    scaled = open_source(write_t5gemma(tmp_path / "t5gemma", tiny_t5gemma()))
    test_the_start_is_made_again_bit_for_bit(scaled, tmp_path, SampledVocab(200), "bfloat16")


def test_a_run_from_a_source_prompt_starts_with_it_and_records_it(source, tmp_path):
    tuned = np.random.default_rng(0).normal(size=(LENGTH, EMB_DIM)).astype(np.float32)
    recorded = {"task": "mnli", "frozen_digest": "ab"}
    write.save_prompts(tmp_path / "mnli", 9, {PROMPT_PATH: tuned}, recorded)
    path = tmp_path / "mnli" / "numpy_checkpoints" / "checkpoint_9"
    model, start, prompt, info = initialize(FromFile(str(path)), source, tmp_path / "run")
    np.testing.assert_array_equal(prompt.view(np.uint32), tuned.view(np.uint32))
    assert info["initial_prompt"] == {
        "path": str(path),
        "sha256": hashlib.sha256(tuned.tobytes()).hexdigest(),
        "task": "mnli",
        "step": 9,
        "frozen_digest": "ab",
    }
    # A run that goes on knows it still, also if the file is gone.
    checkpointer = Checkpointer(tmp_path / "run")
    checkpointer.save(1, start.state.replace(step=start.state.step + 1), info)
    checkpointer.close()
    _, resumed, _, again = initialize(FromFile(str(tmp_path / "gone")), source, tmp_path / "run")
    assert int(resumed.state.step) == 1
    assert again["initial_prompt"] == info["initial_prompt"]
    # From an initializer there is nothing to record.
    *_, other = initialize(Uniform(0.5), source, tmp_path / "other")
    assert other["initial_prompt"] is None


def test_a_checkpoint_s_own_prompt_is_the_start(source, tmp_path):
    prompt = np.ones((LENGTH, EMB_DIM), np.float32)
    holder = types.SimpleNamespace(
        shapes=lambda: {PROMPT_PATH: None}, read=lambda path: prompt, path="memory"
    )
    model = types.SimpleNamespace(prompt=PromptConfig(LENGTH, Uniform(0.5)))
    origin = Origin({"seed": 0}, None, types.SimpleNamespace(model=model))  # pyright: ignore
    np.testing.assert_array_equal(origin.start(prompt, holder, None), prompt)  # pyright: ignore


def test_frozen_weights_that_moved_with_their_run_are_found(source, tmp_path):
    info = {"initial_checkpoint_path": "/gone/inputs/checkpoint_7", "model_dir": "/gone/runs/a"}
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "checkpoint_7").symlink_to(source.path)
    origin = Origin(info, paths.absolute(tmp_path / "runs" / "a"), None)
    assert str(origin.open_frozen(None).path) == str(tmp_path / "inputs" / "checkpoint_7")
    assert str(origin.open_frozen(str(source.path)).path) == str(source.path)
    alone = Origin({"initial_checkpoint_path": "/gone/checkpoint_7"}, None, None)
    with pytest.raises(CheckpointError, match="longer where they were: got '/gone/checkpoint_7'"):
        alone.open_frozen(None)


def test_what_no_run_recorded_has_to_be_named(tmp_path):
    np.save(tmp_path / "prompt.npy", np.ones((2, 4), np.float32))
    origin = find_origin(tmp_path / "prompt.npy", {})
    assert origin.model_dir is None and origin.saved_prompts(4) == {} and origin.labels == ()
    with pytest.raises(CheckpointError, match="weights.*are not known.*got None.*--checkpoint"):
        origin.open_frozen(None)
    with pytest.raises(ConfigError, match="vocabulary of the frozen model is not known.*--vocabul"):
        origin.vocabulary(None, 0)
