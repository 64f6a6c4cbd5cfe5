"""What an earlier commit wrote, read and resumed by today's code; `golden/before_the_move/README.md` says how."""

import json
import shutil

import jax
import numpy as np
import pytest

from prompt_tuning import train, tree
from prompt_tuning.checkpoints import digest, load
from prompt_tuning.checkpoints.formats import run
from prompt_tuning.checkpoints.formats.run_source import RunSource
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.prompt_files.read import load_prompt
from prompt_tuning.checkpoints.prompt_files.source import read_source
from prompt_tuning.config import files, resolve
from prompt_tuning.config.flags import parse_run
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.partitioning import PjitPartitioner
from tests.helpers import GOLDEN
from tests.tiny_run import PROMPT_FILE

BEFORE = GOLDEN / "before_the_move"
PROMPT = np.load(BEFORE / "run" / "numpy_checkpoints" / "checkpoint_2" / PROMPT_FILE)
FROZEN_DIGEST = json.loads((BEFORE / "prompt.npy.json").read_text())["frozen_digest"]
# Two steps on eight devices against two steps on one; each moves an element by up to 0.3.
TOLERANCE = 1e-4


def load_all(source, dtype="float32"):
    shapes = {path: jax.ShapeDtypeStruct(*leaf) for path, leaf in source.shapes().items()}
    shardings = dict.fromkeys(shapes, PjitPartitioner().replicated)
    return load.load_params(source, shapes, shardings, dtype=dtype)


@pytest.mark.parametrize(
    "name",
    [
        "prompt.npy",
        "prompt.safetensors",
        "adapter",
        "run/numpy_checkpoints/checkpoint_2",
        f"run/numpy_checkpoints/checkpoint_2/{PROMPT_FILE}",
    ],
)
def test_every_file_of_the_prompt_holds_it_and_what_it_belongs_to(name):
    prompt, info = load_prompt(BEFORE / name, width=16)
    np.testing.assert_array_equal(prompt, PROMPT)
    assert info is not None
    assert (info["step"], info["frozen_digest"]) == (2, FROZEN_DIGEST)


@pytest.mark.parametrize(
    ("name", "step"), [("run", "best"), ("run", "2"), ("run/checkpoint_2", None)]
)
def test_the_prompt_of_a_run_and_of_its_checkpoint(name, step):
    prompt, info = read_source(BEFORE / name, step=step)
    np.testing.assert_array_equal(prompt, PROMPT)
    assert info["task"] == "taskless_glue_sst2_v200"


@pytest.mark.parametrize(("name", "dtype"), [("weights", "float32"), ("weights_int8", "int8")])
def test_converted_weights_have_the_digest_that_was_recorded(name, dtype):
    source = open_source(BEFORE / name)
    params = load_all(source, dtype)
    assert (
        digest.params_digest(params)
        == json.loads((BEFORE / name / "weights.json").read_text())["digest"]
    )
    assert (digest.params_digest(params) == FROZEN_DIGEST) == (name == "weights")
    assert source.step == 1_100_000


def test_a_checkpoint_finds_its_frozen_weights_beside_it(tmp_path):
    shutil.copytree(BEFORE, tmp_path / "moved")
    source = open_source(tmp_path / "moved" / "run", mode="latest")
    assert isinstance(source, RunSource)
    params = load_all(source)
    np.testing.assert_array_equal(params.pop(PROMPT_PATH), PROMPT)
    assert digest.params_digest(params) == source.frozen_digest == FROZEN_DIGEST


def test_the_state_is_restored_whole(tmp_path):
    shutil.copytree(BEFORE / "run", tmp_path / "run")
    path = tmp_path / "run" / "checkpoint_2"
    assert run.find_damage(path) is None
    state = run.open_state(path)
    checkpointer = Checkpointer(tmp_path / "run")
    assert checkpointer.latest_step() == 2 and checkpointer.ledger.steps() == {2}
    abstract = {name: jax.ShapeDtypeStruct(*leaf) for name, leaf in state.shapes().items()}
    restored, metadata = checkpointer.restore(2, tree.unflatten(abstract))
    assert metadata["step"] == int(restored["step"]) == 2
    moments = restored["opt_state"]["unstacked"]["0"]["v"]["encoder"]["prompt"]["prompt"]["prompt"]
    np.testing.assert_array_equal(moments, state.read(f"opt_state/unstacked/0/v/{PROMPT_PATH}"))
    assert float(np.min(moments)) > 0


@pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")
def test_the_run_goes_on_to_the_prompt_it_had_come_to(tmp_path):
    here = tmp_path / "before_the_move"
    shutil.copytree(BEFORE, here)
    places = {
        "MODEL_DIR": here / "run",
        "INITIAL_CHECKPOINT_PATH": here / "weights",
        "TASK_DATA_DIR": here / "data",
        "seqio.SentencePieceVocabulary.sentencepiece_model_file": here / "spiece.model",
    }
    flags = parse_run(
        "train",
        [
            f"--gin_file={here / 'run' / 'config.gin'}",
            *(f"--gin.{name}={str(place)!r}" for name, place in places.items()),
        ],
    )
    parsed = files.read(flags.gin_file, flags.bindings, [])
    resolve.resolve(parsed, train.train, command="train").run()
    prompt, info = load_prompt(here / "run" / "numpy_checkpoints" / "checkpoint_4")
    expected = np.load(BEFORE / "prompt_of_step_4.npy")
    assert np.abs(expected - PROMPT).max() > 0.3
    np.testing.assert_allclose(prompt, expected, atol=TOLERANCE)
    assert info is not None and info["examples_seen"] == 32
