"""`prompt-tuning reproduce released-prompts`, on a tiny model, prompts and data in the place of the published ones."""

import hashlib
import http.client
import json
import urllib.request

import gin
import numpy as np
import pytest
import seqio
from etils import epath

from prompt_tuning import cli, evaluate
from prompt_tuning.commands.reproduce import command, released_prompts
from prompt_tuning.commands.reproduce.released_prompts import DIGESTS, EVALUATIONS
from prompt_tuning.config import files, resolve
from prompt_tuning.data import context
from prompt_tuning.errors import CheckpointError
from prompt_tuning.run.inference import Inference
from tests import tiny_run
from tests.gin_runs import fake_evaluate
from tests.helpers import SHARED, requires_shared

COUNT = 16
TASKS = [e.task for e in EVALUATIONS]


@pytest.fixture(autouse=True)
def clean():
    yield
    context.set_context()
    gin.clear_config()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"), validation=COUNT)


@pytest.fixture(scope="module")
def prompts_dir(tmp_path_factory):
    return write_prompts(tmp_path_factory.mktemp("prompts"), tiny_run.EMB_DIM)


def write_prompts(folder, width):
    for seed, name in enumerate(DIGESTS):
        prompt = np.random.default_rng(seed).normal(size=(100, width)).astype(np.float32)
        np.save(folder / f"{name}.npy", prompt)
    return folder


def argv(inputs, prompts, output_dir, **changed):
    """The command line; a flag set to None is left out."""
    flags = {
        "checkpoint": inputs.checkpoint,
        "vocabulary": inputs.vocabulary,
        "prompts_dir": prompts,
        "data_dir": inputs.data_dir,
        "output_dir": output_dir,
        **changed,
    }
    sizes = {**tiny_run.TINY_SIZES, "TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 16}}
    return [
        "reproduce",
        "released-prompts",
        *(f"--{name}={value}" for name, value in flags.items() if value is not None),
        *(f"--gin.{name}={value!r}" for name, value in sizes.items()),
    ]


@pytest.fixture
def nothing_runs(monkeypatch):
    """Makes the test fail if anything is evaluated."""

    def fail(**_):
        raise AssertionError("evaluated before all was checked")

    monkeypatch.setattr(evaluate, "evaluate", fake_evaluate)
    monkeypatch.setattr(evaluate.DecodingEval, "run", fail)


@pytest.mark.slow
def test_the_model_is_evaluated_with_each_prompt(inputs, prompts_dir, tmp_path, capsys):
    assert cli.main([*argv(inputs, prompts_dir, tmp_path / "out"), "--format=json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["rows"]) == 5
    texts = {}
    for evaluation in EVALUATIONS:
        left = tmp_path / "out" / evaluation.name / "inference_eval"
        (line,) = (left / f"{evaluation.task}-metrics.jsonl").read_text().splitlines()
        rows = [row for row in report["rows"] if row["task"] == evaluation.task]
        assert {row["metric"]: row["published"] for row in rows} == evaluation.published
        assert {row["metric"]: row["measured"] for row in rows} == {
            metric: json.loads(line)[metric] for metric in evaluation.published
        }
        lines = (left / f"{evaluation.task}-{tiny_run.STEP}.jsonl").read_text().splitlines()
        assert len(lines) == COUNT
        texts[evaluation.name] = json.loads(lines[0])["input"]["inputs_pretokenized"]
    assert texts == {
        "sst2": "sentence: a film 0 ",
        "mrpc": "sentence1: a river 0 sentence2: the mill",
        "rte_glue": "sentence1: a river 0 sentence2: the mill",
        "rte_super_glue": "hypothesis: the mill premise: a river 0",
    }
    assert "8 x cpu" in report["measured_on"]
    assert report["checkpoint"] == str(inputs.checkpoint)


@pytest.fixture
def all_but_one(monkeypatch):
    """The model answers every example rightly, but the first."""

    def predict(self, params, examples):
        answers = [(int(i), e["decoder_target_tokens"].tolist()) for i, e in examples]
        return [(i, tokens if i else [1] + [0] * 15) for i, tokens in answers]

    monkeypatch.setattr(Inference, "predict", predict)


def test_expected_stands_beside_got(inputs, prompts_dir, tmp_path, capsys, all_but_one):
    unread = "--gin.ACTIVATION_DTPYE='float32'"
    assert cli.main([*argv(inputs, prompts_dir, tmp_path / "out"), unread]) == 0
    captured = capsys.readouterr()
    assert "warning: " in captured.err and "ACTIVATION_DTYPE" in captured.err
    assert unread in captured.out
    lines = [line.split() for line in captured.out.splitlines()]
    right = 100 * (COUNT - 1) / COUNT
    # The first MRPC example is not a paraphrase; an answer that is no label counts as the other class.
    f1 = 100 * 2 * 8 / (2 * 8 + 1)
    expected = [
        ("sst2", TASKS[0], "accuracy", 95.07, right),
        ("mrpc", TASKS[1], "f1", 89.7, f1),
        ("mrpc", TASKS[1], "accuracy", 85.3, right),
        ("rte", TASKS[2], "accuracy", 68.6, right),
        ("rte", TASKS[3], "accuracy", 68.6, right),
    ]
    assert lines[0] == "prompt task metric examples published measured difference".split()
    assert lines[1:6] == [
        [name, task, metric, str(COUNT), f"{there:g}", f"{here:.2f}", f"{here - there:+.2f}"]
        for name, task, metric, there, here in expected
    ]
    for text in (
        f"published: by the authors, in {released_prompts.SCORES_URL}",
        "measured:  here, on 8 x cpu",
        f"{prompts_dir}/sst2.npy is not the released prompt",
        f"{TASKS[1]} has {COUNT} examples here; its score was published for 408",
        "The authors' setting was changed by --gin.NUM_EMBEDDINGS=256 ",
        "whether RTE is GLUE's or SuperGLUE's",
    ):
        assert text in captured.out
    assert captured.out.count("note: ") == 3 + 4 + 2
    # What evaluation prints on the way leaves standard output to the report.
    assert f"{TASKS[0]} step={tiny_run.STEP}" in captured.err


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("prompts_dir", [f"{released_prompts.PROMPTS_URL}/sst2.npy", "--prompts_dir"]),
        ("checkpoint", [released_prompts.CHECKPOINT, "--checkpoint=DIR"]),
        ("vocabulary", ["gs://t5-data/vocabs/cc_all.32000.100extra/", "--vocabulary=FILE"]),
        ("data_dir", ["/glue/data/SST-2.zip", "--data_dir=DIR", "--tfds_data_dir=DIR"]),
    ],
)
def test_what_is_missing_is_named_with_its_address_and_the_option(
    flag, words, inputs, prompts_dir, tmp_path, capsys, nothing_runs
):
    missing = tmp_path / "missing"
    assert cli.main(argv(inputs, prompts_dir, tmp_path / "out", **{flag: missing})) == 2
    error = capsys.readouterr().err
    for word in [str(missing), *words]:
        assert word in error
    assert error.count("Fix: ") == 1
    assert error.startswith("error: ") and "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["checkpoint", "vocabulary"])
def test_an_unreachable_bucket_is_named_too(
    flag, inputs, prompts_dir, tmp_path, capsys, nothing_runs, monkeypatch
):
    """Without the option the public address is read; cloud storage raises errors of its own."""

    class CloudError(Exception):
        pass

    def refuse(*_, **__):
        raise CloudError("Could not resolve host: www.googleapis.com")

    if flag == "checkpoint":
        monkeypatch.setattr(command, "open_source", refuse)
    else:
        monkeypatch.setattr(seqio.SentencePieceVocabulary, "vocab_size", property(refuse))
    assert cli.main(argv(inputs, prompts_dir, tmp_path / "out", **{flag: None})) == 2
    error = capsys.readouterr().err
    for word in ("CloudError: Could not resolve host", "gs://t5-data/", f"--{flag}="):
        assert word in error


def test_data_that_only_the_last_task_lacks_is_found_first(
    inputs, prompts_dir, tmp_path, capsys, nothing_runs
):
    for name in ("SST-2/dev.tsv", "MRPC/dev.tsv", "RTE/dev.tsv"):
        copy = tmp_path / "data" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((inputs.data_dir / name).read_bytes())
    command = argv(inputs, prompts_dir, tmp_path / "out", data_dir=tmp_path / "data")
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    for word in (TASKS[3], "RTE/val.jsonl", "/glue/superglue/data/v2/RTE.zip"):
        assert word in error


def test_prompts_of_another_width_are_refused(inputs, tmp_path, capsys, nothing_runs):
    wide = write_prompts(tmp_path, 48)
    assert cli.main(argv(inputs, wide, tmp_path / "out")) == 2
    error = capsys.readouterr().err
    assert "width 48" in error and "width 32" in error


def test_the_setting_is_the_authors(prompts_dir):
    settings = {
        "MIXTURE_OR_TASK_NAME": "'taskless_glue_sst2_v200'",
        "MIXTURE_OR_TASK_MODULE": "'prompt_tuning.tasks.glue'",
        "BATCH_SIZE": "128",
        "PROMPT_FILE": f"'{prompts_dir}/sst2.npy'",
        "EVAL_OUTPUT_DIR": "'/eval'",
    }
    bindings = [(f"{name} = {value}", f"--gin.{name}={value}") for name, value in settings.items()]
    parsed = files.read(["prompt_tuning/configs/paper/released_prompts.gin"], bindings)
    resolved = resolve.resolve(parsed, fake_evaluate, command="eval")
    arguments = resolved.arguments()
    model, cfg = arguments["model"], arguments["dataset_cfg"]
    assert (model.config.emb_dim, model.config.num_encoder_layers) == (768, 12)
    assert model.config.dtype == "bfloat16" and model.prompt.length == 100
    assert (model.decoder.num_decodes, model.decoder.alpha) == (1, 0.6)
    assert (cfg.split, cfg.batch_size) == ("validation", 128)
    assert cfg.task_feature_lengths == {"inputs": 512, "targets": 8}
    assert arguments["restore_checkpoint_cfg"].path == released_prompts.CHECKPOINT
    assert resolved.warnings == ()


# The download.


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder in the place of the address, with a stand-in for sst2.npy."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "sst2.npy").write_bytes(b"the released prompt")
    monkeypatch.setattr(released_prompts, "PROMPTS_URL", folder.as_uri())
    digest = hashlib.sha256(b"the released prompt").hexdigest()
    monkeypatch.setitem(DIGESTS, "sst2", digest)
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_prompt_is_downloaded_once(published, tmp_path):
    cache = tmp_path / "cache" / "deep"
    path = released_prompts.fetch("sst2", str(cache))
    assert path.read_bytes() == b"the released prompt" and names(cache) == ["sst2.npy"]
    (published / "sst2.npy").unlink()
    assert released_prompts.fetch("sst2", str(cache)) == path


def test_a_damaged_copy_is_downloaded_again(published, tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "sst2.npy").write_bytes(b"the released pro")
    path = released_prompts.fetch("sst2", str(cache))
    assert path.read_bytes() == b"the released prompt" and names(cache) == ["sst2.npy"]


def test_a_download_that_is_not_the_released_file_is_refused(published, tmp_path):
    (published / "sst2.npy").write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=r"is not the released prompt sst2.*--prompts_dir"):
        released_prompts.fetch("sst2", str(tmp_path / "cache"))
    assert names(tmp_path / "cache") == []


@pytest.mark.parametrize(
    "error", [None, http.client.IncompleteRead(b"the"), TimeoutError("timed out")]
)
def test_a_failed_download_names_the_address_and_the_option(
    error, published, tmp_path, monkeypatch
):
    def fail(*_, **__):
        raise error

    if error is None:
        (published / "sst2.npy").unlink()
    else:
        monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(CheckpointError) as raised:
        released_prompts.fetch("sst2", str(tmp_path / "cache"))
    for word in ("cannot be downloaded", f"{published.as_uri()}/sst2.npy", "--prompts_dir=DIR"):
        assert word in str(raised.value)
    assert names(tmp_path / "cache") == []


@requires_shared
def test_the_digests_are_those_of_the_released_files():
    assert SHARED is not None
    folder = SHARED / "data/prompts/t5_1_1_lm100k_base"
    assert set(DIGESTS) == {e.prompt for e in EVALUATIONS} == {"sst2", "mrpc", "rte"}
    for name in DIGESTS:
        path = released_prompts.find(name, str(folder))
        assert released_prompts.is_released(name, epath.Path(path))
        assert np.load(path).shape == (100, 768)
