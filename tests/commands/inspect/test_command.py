"""The command `inspect` on a run's folder as a run leaves it, and on files from elsewhere."""

import json
import re

import jax
import numpy as np
import pytest

from prompt_tuning import cli
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.prompt_files import write
from prompt_tuning.commands.export import command as export
from prompt_tuning.commands.inspect import command, origin
from prompt_tuning.config import files, resolve
from prompt_tuning.config.flags import parse_run
from prompt_tuning.errors import ConfigError
from prompt_tuning.params.names import PROMPT_PATH, PROMPT_REGEX
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run import identity
from prompt_tuning.run.start import initialize
from prompt_tuning.training.adafactor import Adafactor
from tests import tiny_run
from tests.gin_runs import fake_train

FILES = [
    f"prompt_tuning/configs/{name}.gin"
    for name in ("models/t5_1_1_small_prompt", "prompts/from_class_labels", "runs/prompt_finetune")
]
LABELS = ["True", "movie", "False"]
STEPS = (2, 4)

pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")


def turned(start, step):
    """The prompt that the run "tuned": row 0 stays in its direction, row 1 goes away, the others double."""
    prompt = 2.0 * start
    prompt[1] = np.random.default_rng(step).normal(size=start.shape[1])
    return prompt


@pytest.fixture(scope="module")
def run(inputs, tmp_path_factory):
    """(MODEL_DIR with the config and the prompts of two steps, the prompt it started from)."""
    model_dir = tmp_path_factory.mktemp("runs") / "run"
    settings = {
        "MODEL_DIR": str(model_dir),
        "MIXTURE_OR_TASK_NAME": "taskless_super_glue_boolq_v102",
        "MIXTURE_OR_TASK_MODULE": "prompt_tuning.tasks.super_glue",
        "TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 16},
        "INITIAL_CHECKPOINT_PATH": str(inputs.checkpoint),
        "TRAIN_STEPS_RELATIVE": 4,
        "PROMPT_LENGTH": 5,
        "CLASS_LABELS": LABELS,
        "prompts.from_embedded_list.population_size": 200,
    }
    flags = parse_run("train", inputs.flags(**settings))
    resolved = resolve.resolve(files.read(FILES, flags.bindings, []), fake_train, command="train")
    arguments = resolved.arguments()
    start = initialize(
        arguments["model"],
        PjitPartitioner(),
        Adafactor().make(lambda step: 0.3),
        source=open_source(inputs.checkpoint),
        frozen_dtype="float32",
        trainable_regex=PROMPT_REGEX,
        checkpointer=Checkpointer(model_dir),
        rng=jax.random.key(3),
    )
    prompt = np.array(start.state.trainable["encoder"]["prompt"]["prompt"]["prompt"])
    (model_dir / "config.gin").write_text(resolved.text)
    cfg = arguments["train_dataset_cfg"]
    info = identity.describe(arguments["model"], cfg, str(model_dir), 3, resolved.text)
    for step in STEPS:
        recorded = {**info, **start.metadata}
        write.save_prompts(model_dir, step, {PROMPT_PATH: turned(prompt, step)}, recorded)
    return model_dir, prompt


def inspect(capsys, *args):
    assert cli.main(["inspect", *map(str, args)]) == 0
    return capsys.readouterr()


def test_a_run_names_all_that_is_needed_and_is_shown_over_time(run, inputs, capsys):
    model_dir, start = run
    (found,) = json.loads(inspect(capsys, model_dir, "--format=json", "--top=3").out)
    prompt = turned(start, 4)
    assert (found["step"], found["task"]) == (4, "taskless_super_glue_boolq_v102")
    assert (found["length"], found["width"], found["top"]) == (5, tiny_run.EMB_DIM, 3)
    assert found["frozen_weights"] == str(inputs.checkpoint)
    assert [len(row["neighbours"]) for row in found["rows"]] == [3] * 5
    moved = np.linalg.norm(prompt - start, axis=1)
    assert [row["start"]["moved"] for row in found["rows"]] == pytest.approx(moved, rel=1e-5)
    # Rows that doubled point where they did: at their label, or at the token that they started from.
    for row in (0, 2, 3, 4):
        shown = found["rows"][row]
        assert shown["start"]["nearest_distance"] == pytest.approx(
            shown["neighbours"][0]["distance"], abs=1e-5
        )
    assert set(found["labels"]) == set(LABELS)
    assert 0 in found["labels"]["True"] and 2 in found["labels"]["False"]
    assert found["start"]["labels_in_own_row"] == 3
    assert [point["step"] for point in found["course"]] == [0, 2, 4]
    assert found["course"][0] == {
        "step": 0,
        **found["start"],
        "moved": 0,
        "turned": pytest.approx(0, abs=1e-6),
        "kept_nearest": 5,
    }
    assert found["course"][-1] == {"step": 4, **found["figures"]}
    assert found["figures"]["kept_nearest"] >= 4
    assert found["random"]["draws"] == 5
    assert found["random"]["mean"]["norm"] == pytest.approx(found["figures"]["norm"], rel=1e-5)


def test_the_table_shows_rows_figures_labels_and_steps(run, capsys):
    model_dir, _ = run
    out = inspect(capsys, model_dir, "--step=2").out
    assert "step 2: 5 rows of width 32" in out
    assert re.search(r"label 'True': rows .*0", out)
    for title in ("random, 5 draws", "nearest at the start", "labels found in their own row"):
        assert title in out
    lines = [line.split()[0] for line in out.splitlines() if re.match(r" *\d", line)]
    assert lines == ["0", "1", "2", "3", "4", "0", "2", "4"]


def test_a_file_from_elsewhere_needs_its_weights_and_vocabulary_named(
    run, inputs, tmp_path, capsys
):
    model_dir, start = run
    np.save(tmp_path / "prompt.npy", turned(start, 4))
    named = [f"--checkpoint={inputs.checkpoint}", f"--vocabulary={inputs.vocabulary}"]
    args = [*named, "--extra_ids=0", "--labels=False,True", "--format=json", "--draws=1"]
    picture = tmp_path / "picture.png"
    printed = inspect(capsys, tmp_path / "prompt.npy", model_dir, *args, f"--png={picture}")
    other, same = json.loads(printed.out)
    assert other["course"] == [] and other["start"] is None
    assert other["labels"]["True"] == same["labels"]["True"]
    assert [r["neighbours"] for r in other["rows"]] == [r["neighbours"] for r in same["rows"]]
    assert set(other["random"]["sd"].values()) == {0}
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert cli.main(["inspect", str(tmp_path / "prompt.npy"), named[1]]) == 2
    assert "Fix: name the checkpoint as --checkpoint" in capsys.readouterr().err


def test_an_exported_prompt_still_knows_its_run(run, tmp_path, capsys):
    model_dir, _ = run
    export.main([str(model_dir), str(tmp_path / "out.npy"), "--step=2"])
    # One of another run, laid beside this one's files, does not become this run's.
    np.save(model_dir / "stray.npy", np.ones((2, tiny_run.EMB_DIM), np.float32))
    assert origin.find_origin(model_dir / "stray.npy", {}).model_dir is None
    capsys.readouterr()
    (found,) = json.loads(inspect(capsys, tmp_path / "out.npy", "--format=json").out)
    assert found["step"] == 2 and set(found["labels"]) == set(LABELS)
    assert [point["step"] for point in found["course"]] == [0, 2, 4]


@pytest.mark.parametrize("flag", ["--top=0", "--top=100000", "--draws=0"])
def test_numbers_that_make_no_sense_are_refused(run, flag):
    refused = ConfigError if flag == "--top=100000" else SystemExit
    with pytest.raises(refused, match="More neighbours than there are tokens|2"):
        command.main([str(run[0]), flag])
