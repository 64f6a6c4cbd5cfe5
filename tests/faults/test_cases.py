"""Mistakes that people report in public about this kind of work, typed, and what is right for each."""

import gzip
import json
import shutil

import numpy as np
import pytest

from prompt_tuning.checkpoints.prompt_files.write import write_prompt
from tests.faults.world import bindings
from tests.helpers import train_sentencepiece

_VOCABULARY = "--vocabulary=prompt_tuning/ladder/vocabulary.model"
_GOOD = '{"text": "a light kite", "label": 1}\n{"text": "it broke at once", "label": 0}\n'
_LABELS = "{0: 'negative', 1: 'positive'}"
_T5 = {"model_type": "t5", "vocab_size": 96, "num_layers": 1, "num_heads": 2}
_T5 |= {"d_model": 8, "d_kv": 4, "d_ff": 16}
_LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 100\n"


def _task(**settings: str) -> str:
    """The gin file of a task whose files lie in the folder `case`; values are gin text."""
    described = {
        "name": "'mine'",
        "train": "'case/train.jsonl'",
        "inputs": "'review: {text}'",
        "targets": "'{label}'",
        "label_map": _LABELS,
        **settings,
    }
    lines = [f"  {name} = {value}\n" for name, value in described.items()]
    return "MIXTURE_OR_TASK_NAME = @tasks.from_files()\ntasks.from_files:\n" + "".join(lines)


_CHECK = ["tasks", "check", "--gin_file=case/task.gin", _VOCABULARY]
_SHOW = ["tasks", "show", "--gin_file=case/task.gin", _VOCABULARY]
_WORDS = "{'pos': 'positive', 'neg': 'negative'}"
_NO_VALIDATION = bindings(**{"tasks.from_files.validation": None})
_CSV = _task(train="'case/train.csv'", label_map=_WORDS)
_TSV = _task(train="'case/train.tsv'", label_map=_WORDS)
# Files, the command ("train": all flags of a run, and these), its exit code, and what it says.
CASES: dict[str, tuple[dict[str, str], list[str], int, list[str]]] = {
    "missing vocabulary": (
        {"task.gin": _task(), "train.jsonl": _GOOD},
        [*_CHECK[:3], "--vocabulary=case/none.model"],
        2,
        ["error: ", "vocabulary file", "case/none.model"],
    ),
    "delimiter": (
        {"task.gin": _CSV, "train.csv": "text;label\nnice, warm;pos\nbad;neg\n"},
        _CHECK,
        1,
        ["separated by ';'", "Fix: save the file again with commas"],
    ),
    "empty columns": (
        {"task.gin": _CSV, "train.csv": "label,text,,\npos,nice,,\nneg,bad,,\n"},
        _CHECK,
        0,
        ["2 examples"],
    ),
    "encoding of gin": (
        {"task.gin": "X = '\xe9'"},
        ["train", "--gin_file=case/latin.gin"],
        2,
        ["is not UTF-8"],
    ),
    "curly quotes": (
        {"task.gin": _task(name="‘mine’"), "train.jsonl": _GOOD},
        _CHECK,
        2,
        ["curly quotes", "name = 'mine'"],
    ),
    "no comma": (
        {"task.gin": _task(label_map="{0: 'negative' 1: 'positive'}"), "train.jsonl": _GOOD},
        _CHECK,
        2,
        ["{0: 'negative', 1: 'positive'}"],
    ),
    "label that the vocabulary cannot write": (
        {"task.gin": _task(label_map="{0: 'negative ', 1: 'positive'}"), "train.jsonl": _GOOD},
        ["train", "--gin_file=case/task.gin"],
        2,
        ["writes the label 'negative '", "as 'negative'"],
    ),
    "long targets, checked": (
        {
            "task.gin": _task(targets="'{text}'", label_map="None"),
            "train.jsonl": _GOOD,
        },
        [*_CHECK, "--targets_length=3"],
        0,
        ["2 of 2 targets of train are cut at 3 tokens"],
    ),
    "inputs of unknown tokens": (
        {
            "task.gin": _task(inputs="'{text}'"),
            "train.jsonl": '{"text": "茶很香", "label": 0}\n{"text": "路很长", "label": 1}\n',
        },
        _CHECK,
        1,
        ["2 of 2 hold tokens that the vocabulary lacks"],
    ),
    "withheld labels": (
        {
            "task.gin": _task(test="'case/test.jsonl'"),
            "train.jsonl": _GOOD,
            "test.jsonl": '{"text": "hm", "label": -1}\n{"text": "so", "label": -1}\n',
        },
        _CHECK,
        0,
        ["schema of test: 2 examples"],
    ),
    "quotes in a TSV": (
        {"task.gin": _TSV, "train.tsv": 'text\tlabel\n"she said ""go"""\tpos\nbad\tneg\n'},
        _SHOW,
        0,
        ["train.tsv:2: cells look quoted", "save the file as CSV"],
    ),
    "no validation": (
        {"task.gin": _task(), "train.jsonl": _GOOD},
        ["train", "--gin_file=case/task.gin", *_NO_VALIDATION],
        2,
        ["train.train.infer_eval_dataset_cfg=None", "train.train.train_eval_dataset_cfg=None"],
    ),
    "Git LFS": (
        {"config.json": json.dumps(_T5), "model.safetensors": _LFS},
        ["convert", "case", "case/weights"],
        2,
        ["Git LFS", "git lfs pull"],
    ),
    "number of embeddings": (
        {},
        ["train", *bindings(NUM_EMBEDDINGS=2176)],
        2,
        ["NUM_EMBEDDINGS = 2048"],
    ),
    "length of the prompt": (
        {},
        ["eval", *bindings(PROMPT_LENGTH=100)],
        2,
        ["Fix: bind PROMPT_LENGTH = 5."],
    ),
    "another task": (
        {
            "task.gin": _task(name="'kites'", inputs="'is this good? {text}'"),
            "train.jsonl": _GOOD,
        },
        ["train", "--gin_file=case/task.gin", *bindings(MODEL_DIR="trained")],
        2,
        ["would be resumed, was made from something else"],
    ),
}


@pytest.fixture
def case(world):
    """A folder for the files of a case."""
    folder = world.folder / "case"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def _argv(world, argv):
    if argv[0] in ("train", "eval") and not argv[1].startswith("--gin_file=case/latin"):
        return [*world.argv(argv[0], "case"), *argv[1:]]
    return argv


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_told(server, world, case, name):
    files, argv, code, texts = CASES[name]
    for file, content in files.items():
        (case / file).write_text(content)
    if "latin" in argv[-1]:
        (case / "latin.gin").write_bytes(b"X = '\xe9'\n")
    outcome = server.run(_argv(world, argv), folder=world.folder)
    assert outcome.is_told and outcome.code == code, outcome.output
    for text in texts:
        assert text in outcome.output, outcome.output


def test_tables_of_questions_are_read_as_such(server, world, case):
    (case / "a.csv").write_text(
        'inputs,targets\n"light, bright",positive\n"it broke,\nsoon",negative\n'
    )
    (case / "b.csv").write_bytes(gzip.compress(b"inputs\nlight\n"))
    for name, num in (("a.csv", 2), ("b.csv", 1)):
        argv = [*world.argv("infer", f"case/of_{name}"), *bindings(INFER_INPUT_FILE=f"case/{name}")]
        outcome = server.run(argv, folder=world.folder)
        assert outcome.code == 0, outcome.output
        (written,) = case.glob(f"of_{name}/predictions/*-of-00001")
        assert len(written.read_text().splitlines()) == num


def test_a_home_folder_is_the_home_folder(server, world, case):
    argv = [*world.argv("train", "case"), *bindings(MODEL_DIR="~/case_of_home"), "--dry_run"]
    outcome = server.run(argv, folder=world.folder)
    assert outcome.code == 0 and not (world.folder / "~").exists(), outcome.output


def test_an_adapter_without_its_width_is_read(server, world, case):
    write_prompt(case / "adapter", np.ones((5, 16), np.float32), {}, file_format="peft")
    file = case / "adapter" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "token_dim": None}))
    outcome = server.run(["export", "case/adapter", "case/p.npy"], folder=world.folder)
    assert outcome.code == 0 and np.load(case / "p.npy").shape == (5, 16), outcome.output


def test_ids_of_a_vocabulary_that_no_model_has_are_told(server, world, case):
    import sentencepiece

    (case / "train.jsonl").write_text(_GOOD)
    (case / "task.gin").write_text(_task())
    train_sentencepiece(case / "right.model")
    text = case / "text.txt"
    text.write_text("a light kite that broke at once, negative or positive: review\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(case / "wrong"), vocab_size=40, hard_vocab_limit=False
    )
    for name, code in (("wrong", 2), ("right", 0)):
        argv = [*_CHECK[:3], f"--vocabulary=case/{name}.model", "--extra_ids=0"]
        outcome = server.run(argv, folder=world.folder)
        assert outcome.code == code, outcome.output
        assert ("--pad_id=0" in outcome.output) == (name == "wrong")


def test_predictions_of_data_that_was_edited_are_not_handed_out(server, world, case):
    for name in ("train", "validation"):
        shutil.copy(world.folder / f"{name}.jsonl", case)
    rows = bindings(**{"tasks.from_files.validation": "case/validation.jsonl"})
    argv = [*world.argv("infer", "case"), *rows]
    assert server.run(argv, folder=world.folder).code == 0
    file = case / "validation.jsonl"
    file.write_text(file.read_text().replace("kite", "bird"))
    outcome = server.run(argv, folder=world.folder)
    assert outcome.code == 2 and "content of its files" in outcome.output, outcome.output
