"""Inference and Python use of a finished run: modes, files, shards, resuming, refusals."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import seqio
from etils import epath

from prompt_tuning import cli, infer, predict
from prompt_tuning.config import queries
from prompt_tuning.errors import CheckpointError, ConfigError, DataError
from tests import tiny_run
from tests.data.local_data import write_jsonl
from tests.tiny_run import PROMPT_FILE, STEP

CONFIGS = "prompt_tuning/configs"
LENGTHS = {"inputs": 32, "targets": 16}
TEXTS = ["hypothesis: the mill premise: a river 1", "a", "the old mill by the river"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"), validation=10)


@pytest.fixture(scope="module")
def model_dir(inputs, tmp_path_factory):
    """A run of two prompt-tuning steps on CB."""
    folder = tmp_path_factory.mktemp("model") / "run"
    settings = {
        "MODEL_DIR": str(folder),
        "MIXTURE_OR_TASK_NAME": "taskless_super_glue_cb_v102",
        "MIXTURE_OR_TASK_MODULE": "prompt_tuning.tasks.super_glue",
        "TASK_FEATURE_LENGTHS": LENGTHS,
        "INITIAL_CHECKPOINT_PATH": str(inputs.checkpoint),
        "TRAIN_STEPS": STEP + 2,
        "EVAL_STEPS": 0,
        "train.train.infer_eval_dataset_cfg": None,
        "BATCH_SIZE": 8,
        "PROMPT_LENGTH": 4,
    }
    files = ("models/t5_1_1_small_prompt.gin", "runs/prompt_finetune.gin")
    argv = ["train", *(f"--gin_file={name}" for name in files), *inputs.flags(**settings)]
    assert cli.main(argv) == 0
    return folder


@pytest.fixture(scope="module")
def run(model_dir):
    """The run, loaded once."""
    return predict.load_run(str(model_dir))


def _infer(inputs, model_dir, output_dir, *flags, **macros):
    settings = {
        "CHECKPOINT_PATH": str(model_dir / "checkpoint_2"),
        "INFER_OUTPUT_DIR": str(output_dir),
        "TASK_FEATURE_LENGTHS": LENGTHS,
        "BATCH_SIZE": 8,
        "PROMPT_LENGTH": 4,
        "utils.RestoreCheckpointConfig.dtype": "float32",
        **macros,
    }
    files = ("models/t5_1_1_small_prompt.gin", "runs/prompt_infer.gin")
    argv = ["infer", *(f"--gin_file={name}" for name in files), *inputs.flags(**settings), *flags]
    return cli.main(argv)


SPLIT = {
    "MIXTURE_OR_TASK_NAME": "taskless_super_glue_cb_v102",
    "MIXTURE_OR_TASK_MODULE": "prompt_tuning.tasks.super_glue",
    "utils.DatasetConfig.split": "validation",
}


def _records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("mode", ["predict", "score", "predict_with_aux"])
def test_each_mode_writes_t5x_keys_for_a_split(inputs, model_dir, tmp_path, mode):
    assert _infer(inputs, model_dir, tmp_path, **SPLIT, **{"infer.mode": mode}) == 0
    path = tmp_path / f"taskless_super_glue_cb_v102-{mode}.jsonl-00000-of-00001"
    records = _records(path)
    assert len(records) == 10
    keys = {
        "predict": {"prediction"},
        "score": {"score"},
        "predict_with_aux": {"prediction", "aux"},
    }
    assert all(set(r) == {"inputs"} | keys[mode] for r in records)
    assert records[3]["inputs"]["inputs_pretokenized"].startswith("hypothesis: the mill premise: a")
    assert (tmp_path / f"{path.name}.COMPLETED").exists()
    assert not list(tmp_path.glob("*-tmp"))
    if mode == "predict_with_aux":
        assert all(r["aux"]["scores"] < 0 for r in records)


def test_shards_together_are_the_whole_split(inputs, model_dir, tmp_path):
    shards = []
    for shard in range(2):
        flags = {"infer.num_shards": 2, **SPLIT}
        assert _infer(inputs, model_dir, tmp_path, f"--shard_id={shard}", **flags) == 0
        name = f"taskless_super_glue_cb_v102-predict.jsonl-0000{shard}-of-00002"
        shards.append(_records(tmp_path / name))
    texts = [r["inputs"]["inputs_pretokenized"] for pair in zip(*shards, strict=True) for r in pair]
    assert texts == [f"hypothesis: the mill premise: a river {i}" for i in range(10)]


def test_a_test_split_of_superglue_is_ready_to_submit(inputs, model_dir, tmp_path):
    rows = [{"premise": "a river", "hypothesis": "the mill", "idx": idx} for idx in (3, 1, 2)]
    write_jsonl(tmp_path / "data" / "CB" / "test.jsonl", rows)
    settings = {
        **SPLIT,
        "utils.DatasetConfig.split": "test",
        "TASK_DATA_DIR": str(tmp_path / "data"),
    }
    assert _infer(inputs, model_dir, tmp_path / "out", **settings) == 0
    lines = _records(tmp_path / "out" / "leaderboard" / "CB.jsonl")
    assert [line["idx"] for line in lines] == [3, 1, 2]
    assert {line["label"] for line in lines} <= {"entailment", "contradiction", "neutral"}
    # A run that died before it wrote the file writes it when it is started again.
    shutil.rmtree(tmp_path / "out" / "leaderboard")
    assert _infer(inputs, model_dir, tmp_path / "out", **settings) == 0
    assert _records(tmp_path / "out" / "leaderboard" / "CB.jsonl") == lines


def test_answers_from_a_cache_are_not_submitted(monkeypatch, tmp_path):
    """The examples of a cache are shuffled, so that nothing tells whose answer is whose."""
    written = []
    monkeypatch.setattr(
        infer.leaderboard, "write_predictions", lambda *args, **_: written.append(args)
    )
    shard = infer.Shard(epath.Path(tmp_path), "x", {})
    shard.final.write_text('{"prediction": "neutral"}\n')
    for use_cached in (True, False):
        cfg = infer.batches.DatasetConfig(
            "super_glue_cb_v102", LENGTHS, "test", 8, use_cached=use_cached
        )
        infer.write_submission(shard, cfg, "predict", 1, None)
        infer.write_submission(shard, cfg, "predict", 2, None)
        assert len(written) == int(not use_cached)


@pytest.mark.parametrize("suffix", ["jsonl", "tsv", "txt"])
def test_files_give_the_same_answers_as_python(inputs, model_dir, run, tmp_path, suffix):
    path = tmp_path / f"questions.{suffix}"
    lines = {
        "jsonl": [json.dumps({"inputs": text}) for text in TEXTS],
        "tsv": ["inputs", *TEXTS],
        "txt": TEXTS,
    }
    path.write_text("\n".join(lines[suffix]) + "\n")
    assert _infer(inputs, model_dir, tmp_path / "out", INFER_INPUT_FILE=str(path)) == 0
    records = _records(tmp_path / "out" / "questions-predict.jsonl-00000-of-00001")
    assert run.step == 2
    assert [r["prediction"] for r in records] == run.predict(TEXTS)
    assert [r["inputs"]["inputs_pretokenized"] for r in records] == TEXTS
    # The closing file holds the settings.
    name = "questions-predict.jsonl-00000-of-00001.COMPLETED"
    settings = json.loads((tmp_path / "out" / name).read_text())
    assert settings["BATCH_SIZE"] == 8 and settings["TASK_FEATURE_LENGTHS"] == LENGTHS
    assert settings["CHECKPOINT_PATH"] == str(model_dir / "checkpoint_2")
    assert not [name for name, value in settings.items() if " at 0x" in str(value)]


def test_scores_do_not_depend_on_the_batch_they_are_in(run):
    targets = ["entailment", "neutral", "contradiction"]
    together = run.score(TEXTS, targets)
    apart = [run.score([t], [a])[0] for t, a in zip(TEXTS, targets, strict=True)]
    assert len(together) == 3
    np.testing.assert_allclose(together, apart, rtol=1e-5)
    assert all(score < 0 for score in together)


def test_an_interrupted_shard_resumes_at_the_missing_chunk(
    inputs, model_dir, tmp_path, monkeypatch
):
    computed = []
    original = infer.run_chunk

    def stop_at_second(*args):
        if len(computed) == 1:
            raise KeyboardInterrupt
        computed.append(original(*args))
        return computed[-1]

    chunked = {**SPLIT, "BATCH_SIZE": 8, "infer.checkpoint_period": 1}
    monkeypatch.setattr(infer, "run_chunk", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        _infer(inputs, model_dir, tmp_path, **chunked)
    assert not list(tmp_path.glob("*.COMPLETED"))
    again = []
    monkeypatch.setattr(infer, "run_chunk", lambda *args: again.append(1) or original(*args))
    assert _infer(inputs, model_dir, tmp_path, **chunked) == 0
    assert len(again) == 1
    records = _records(tmp_path / "taskless_super_glue_cb_v102-predict.jsonl-00000-of-00001")
    assert len(records) == 10
    assert _infer(inputs, model_dir, tmp_path, **chunked) == 0
    assert len(again) == 1, "a completed shard is not computed again"


def _questions(path, texts=TEXTS):
    path.write_text("\n".join(texts) + "\n")
    return {"INFER_INPUT_FILE": str(path)}


@pytest.mark.parametrize("is_complete", [False, True], ids=["half done", "complete"])
def test_results_of_other_settings_are_refused_by_name(
    inputs, model_dir, tmp_path, capsys, monkeypatch, is_complete
):
    """None of these is in the names of the files, so that nothing else would tell."""
    out = tmp_path / "out"
    prompt = tmp_path / "prompt.npy"
    np.save(prompt, np.full((4, 32), 0.1, np.float32))
    other = shutil.copytree(model_dir / "checkpoint_2", tmp_path / "checkpoint_2")
    first = {
        **_questions(tmp_path / "questions.txt", [*TEXTS] * 4),
        "PROMPT_FILE": str(prompt),
        "infer.checkpoint_period": 1,
    }
    original = infer.run_chunk
    if not is_complete:
        computed = []

        def stop_at_second(*args):
            if computed:
                raise KeyboardInterrupt
            computed.append(1)
            return original(*args)

        monkeypatch.setattr(infer, "run_chunk", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            _infer(inputs, model_dir, out, **first)
        monkeypatch.setattr(infer, "run_chunk", original)
    else:
        assert _infer(inputs, model_dir, out, **first) == 0
    before = {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    changes = {
        "BATCH_SIZE": ({"BATCH_SIZE": 16}, "got 16, expected 8"),
        "infer.checkpoint_period": ({"infer.checkpoint_period": 2}, "got 2, expected 1"),
        "CHECKPOINT_PATH": ({"CHECKPOINT_PATH": str(other)}, "run/checkpoint_2"),
        "TASK_FEATURE_LENGTHS": ({"TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 8}}, "16"),
        "PROMPT_FILE": ({"PROMPT_FILE": str(_copy(prompt))}, "prompt.npy"),
        "utils.RestoreCheckpointConfig.dtype": (
            {"utils.RestoreCheckpointConfig.dtype": "bfloat16"},
            "got 'bfloat16', expected 'float32'",
        ),
    }
    capsys.readouterr()
    for name, (change, values) in changes.items():
        assert _infer(inputs, model_dir, out, **{**first, **change}) == 2, name
        error = capsys.readouterr().err
        assert f"made with another {name}:" in error and re.search(values, error), error
        assert "choose another INFER_OUTPUT_DIR, or delete" in error
    np.save(prompt, np.full((4, 32), 0.2, np.float32))
    assert _infer(inputs, model_dir, out, **first) == 2
    assert "another content of PROMPT_FILE" in capsys.readouterr().err
    np.save(prompt, np.full((4, 32), 0.1, np.float32))
    _questions(tmp_path / "questions.txt", [*TEXTS[::-1]] * 4)
    assert _infer(inputs, model_dir, out, **first) == 2
    assert "another content of INFER_INPUT_FILE" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    _questions(tmp_path / "questions.txt", [*TEXTS] * 4)
    assert _infer(inputs, model_dir, out, **first) == 0
    assert len(_records(out / "questions-predict.jsonl-00000-of-00001")) == 12


def _copy(path):
    return shutil.copy(path, path.with_name("other.npy"))


def test_what_failed_before_its_first_chunk_binds_nothing(inputs, model_dir, tmp_path, monkeypatch):
    def fail(*args):
        raise KeyboardInterrupt

    questions = _questions(tmp_path / "questions.txt")
    original = infer.run_chunk
    monkeypatch.setattr(infer, "run_chunk", fail)
    with pytest.raises(KeyboardInterrupt):
        _infer(inputs, model_dir, tmp_path / "out", **questions)
    monkeypatch.setattr(infer, "run_chunk", original)
    assert _infer(inputs, model_dir, tmp_path / "out", **questions, BATCH_SIZE=16) == 0


def test_decoding_files_change_what_infer_writes(inputs, model_dir, tmp_path):
    questions = _questions(tmp_path / "questions.txt", [*TEXTS] * 2)
    aux = {"infer.mode": "predict_with_aux", **questions}

    def records(folder, *flags):
        assert _infer(inputs, model_dir, tmp_path / folder, *flags, **aux) == 0
        return _records(tmp_path / folder / "questions-predict_with_aux.jsonl-00000-of-00001")

    greedy = records("greedy")
    for decoding in ("beam_search", "nucleus_sampling"):
        file = f"--gin_file=models/decoding/{decoding}.gin"
        chosen, again = records(decoding, file), records(f"{decoding}-again", file)
        assert chosen == again and chosen != greedy and len(chosen) == 6
        if decoding == "beam_search":
            assert chosen[:3] == chosen[3:], "no row depends on its place in the batch"


def test_a_missing_output_vocabulary_is_told_before_anything_is_loaded(inputs, model_dir, tmp_path):
    run = queries.query_run(str(model_dir))
    model = dataclasses.replace(
        run.model, output_vocabulary=seqio.SentencePieceVocabulary("/nowhere/output.model")
    )
    with pytest.raises(DataError, match="/nowhere/output.model"):
        infer.check(model, run.partitioner, run.train_dataset_cfg, None, "predict", 1, 0)


def test_a_run_is_loadable_from_where_it_was_moved_to(model_dir, run, tmp_path):
    moved = shutil.copytree(model_dir, tmp_path / "moved")
    assert predict.load_run(str(moved)).predict(TEXTS) == run.predict(TEXTS)


def test_a_prompt_of_other_frozen_weights_is_refused(inputs, model_dir, tmp_path, capsys):
    from prompt_tuning.checkpoints.open import open_source
    from tests.checkpoints.t5x_writer import write_t5x_checkpoint

    source = open_source(str(inputs.checkpoint))
    params = {path: source.read(path) * 1.5 for path in source.shapes()}
    other = write_t5x_checkpoint(tmp_path / f"checkpoint_{STEP}", params, STEP)
    prompt = model_dir / "numpy_checkpoints/checkpoint_2" / PROMPT_FILE
    macros = {**SPLIT, "CHECKPOINT_PATH": str(other), "PROMPT_FILE": str(prompt)}
    assert _infer(inputs, model_dir, tmp_path / "out", **macros) == 2
    assert "are not those that prompt file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("macros", "text"),
    [
        ({**SPLIT, "infer.mode": "predictt"}, "Closest matches: predict"),
        ({**SPLIT, "infer.shard_id": 1}, "--shard_id out of range"),
        ({}, "MIXTURE_OR_TASK_NAME or INFER_INPUT_FILE"),
        ({"INFER_INPUT_FILE": "BAD"}, "bad.jsonl:2"),
        ({"INFER_INPUT_FILE": "EMPTY"}, "holds no examples"),
        ({**SPLIT, "CHECKPOINT_PATH": "T5X"}, "There is no prompt"),
    ],
)
def test_bad_input_is_refused(inputs, model_dir, tmp_path, capsys, macros, text):
    (tmp_path / "bad.jsonl").write_text('{"inputs": "fine"}\n{"inputs": \n')
    (tmp_path / "empty.txt").write_text("")
    named = {
        "BAD": str(tmp_path / "bad.jsonl"),
        "EMPTY": str(tmp_path / "empty.txt"),
        "T5X": str(inputs.checkpoint),
    }
    macros = {k: named.get(v, v) if isinstance(v, str) else v for k, v in macros.items()}
    assert _infer(inputs, model_dir, tmp_path / "out", **macros) == 2
    assert text in capsys.readouterr().err


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises((ConfigError, CheckpointError), match="holds no config.gin"):
        predict.load_run(str(tmp_path))
