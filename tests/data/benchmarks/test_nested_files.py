"""Original files whose records hold several examples, against the same data prepared by TensorFlow Datasets."""

import gzip
import json
from typing import Any

import numpy as np
import pytest
import seqio

from prompt_tuning.data import columns, context, registry
from prompt_tuning.errors import DataError
from prompt_tuning.tasks import glue, question_answering, super_glue
from tests.data.local_data import prepare_tfds, write_jsonl

PASSAGE = "Ann met Bea.\n@highlight\nShe left"
QUESTIONS = [
    {"question": "Who?", "idx": 3, "answers": [{"text": "Ann", "idx": 4, "label": 1}]},
    {
        "question": "Whom?",
        "idx": 5,
        "answers": [{"text": t, "idx": i, "label": 0} for i, t in enumerate("ab")],
    },
]
SPANS = {"span1_text": "the man", "span1_index": 0, "span2_text": "him", "span2_index": 4}
SQUAD_QUESTION = {
    "id": "q1",
    "question": "When was it?",
    "answers": [{"text": "1776.", "answer_start": 3}, {"text": "in 1776", "answer_start": 0}],
}


def write_originals(root):
    """Every nested data set as it is published."""
    multirc = {"idx": 2, "passage": {"text": "<b>Sent 1: </b>Ann.<br>", "questions": QUESTIONS}}
    write_jsonl(root / "MultiRC" / "val.jsonl", [multirc])
    entities = [{"start": 8, "end": 10}, {"start": 0, "end": 2}, {"start": 0, "end": 2}]
    queries = [
        {"query": "@placeholder left", "idx": 7, "answers": [{"text": t} for t in ("Bea", "Ann")]},
        {"query": "a test's query", "idx": 8},
    ]
    record = {"idx": 1, "passage": {"text": PASSAGE, "entities": entities}, "qas": queries}
    # Only a test split may have queries without answers.
    write_jsonl(root / "ReCoRD" / "test.jsonl", [record])
    wsc = {"text": "The man said that him , X left", "target": SPANS, "idx": 9, "label": False}
    write_jsonl(root / "WSC" / "val.jsonl", [wsc])
    lines = [
        "Ann met Bea as she left.",
        "she",
        "Ann,Bea",
        "Bea",
        "",
        "It ran, it fell.",
        "it",
        "a,b",
        "a",
        "",
        "",
    ]
    lines[4:5] = ["", " "]
    write_jsonl(root / "DPR" / "train.c.txt", lines)
    paragraph = {"context": "It (est. 1776)", "qas": [SQUAD_QUESTION]}
    (root / "SQuAD").mkdir()
    squad = {"data": [{"title": "T", "paragraphs": [paragraph]}], "version": "1.1"}
    (root / "SQuAD" / "dev-v1.1.json").write_text(json.dumps(squad))
    mrqa = [{"header": {"dataset": "RACE"}}, {"context": "Is [SEP] it?", "qas": [
        {"qid": "m", "question": "Is it?", "answers": ["it", "It!"]}]}]  # fmt: skip
    (root / "MRQA").mkdir()
    text = "".join(f"{json.dumps(row)}\n" for row in mrqa)
    (root / "MRQA" / "RACE.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    header = "index\tgenre\tscore\tsentence1\tsentence2"
    write_jsonl(root / "STS-B" / "dev.tsv", [header, '0\tnews\t3.3\t"a\tb', "1\tnews\t5\tc\td"])


MULTIRC = [
    {"paragraph": "<b>Sent 1: </b>Ann.<br>", "question": q["question"], "answer": a["text"],
     "label": a["label"], "idx": {"paragraph": 2, "question": q["idx"], "answer": a["idx"]}}
    for q in QUESTIONS for a in q["answers"]
]  # fmt: skip
RECORD = [
    {"passage": PASSAGE, "query": query, "entities": ["Ann", "Bea"], "answers": answers,
     "idx": {"passage": 1, "query": idx}}
    for query, answers, idx in (("@placeholder left", ["Ann", "Bea"], 7), ("a test's query", [], 8))
]  # fmt: skip
DPR = [
    {
        "sentence": "Ann met Bea as she left.",
        "pronoun": "she",
        "candidates": ["Ann", "Bea"],
        "label": 1,
    },
    {"sentence": "It ran, it fell.", "pronoun": "it", "candidates": ["a", "b"], "label": 0},
]
WSC = {
    "text": "The man said that him , X left",
    "label": 0,
    "idx": 9,
    **SPANS,
    "span1_text": "The man",
}
SQUAD = {
    "id": "q1", "title": "T", "context": "It (est. 1776)", "question": "When was it?",
    "answers": {"text": ["1776.", "in 1776"], "answer_start": [3, 0]},
}  # fmt: skip
MRQA = {
    "context": "Is [SEP] it?", "qid": "m", "question": "Is it?", "answers": ["it", "It!"],
    "subset": "RACE", "context_tokens": {"offsets": [], "tokens": []},
    "question_tokens": {"offsets": [], "tokens": []}, "detected_answers": [],
}  # fmt: skip
STSB = [
    {"sentence1": '"a', "sentence2": "b", "label": 3.3, "idx": 0},
    {"sentence1": "c", "sentence2": "d", "label": 5.0, "idx": 1},
]
# Task -> (name in TensorFlow Datasets, its split, our split, records, text that results).
PREPARED = {
    "taskless_super_glue_multirc_v102": (
        "super_glue/multirc:1.0.2", "validation", "validation", MULTIRC,
        ("question: Who? answer: Ann paragraph: Sent 1: Ann. ", "True"),
    ),
    "super_glue_record_v102": (
        "super_glue/record:1.0.2", "test", "test", RECORD,
        ("record query: @placeholder left entities: Ann, Bea passage: Ann met Bea. She left", "Ann"),
    ),
    "super_glue_wsc_v102_simple_eval": (
        "super_glue/wsc.fixed:1.0.2", "validation", "validation", [WSC],
        ("wsc: The man said that *him* , *him* left", "The man"),
    ),
    "dpr_v001_simple": (
        "definite_pronoun_resolution:1.1.0", "train", "train", DPR,
        ("wsc: Ann met Bea as *she* left.", "Bea"),
    ),
    "squad_v010_allanswers": (
        "squad/v1.1:3.0.0", "validation", "validation", [SQUAD],
        ("question: When was it ? context: It ( est . 1776 ) ", "1776 . "),
    ),
    "mrqa_race_v100": (
        "mrqa/race:1.0.0", "test", "validation", [MRQA],
        ("question: Is it ? context: Is [ SEP ] it ? ", "it"),
    ),
    "taskless_glue_stsb_v200": (
        "glue/stsb:2.0.0", "validation", "validation", STSB,
        ('sentence1: "a sentence2: b', "3.2"),
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def clean_override():
    yield
    seqio.set_tfds_data_dir_override(None)


def texts(task, split):
    """(inputs, targets) of a task's split."""
    ds = task.preprocessors[0](task.source.get_dataset(split, shuffle=False))
    examples = list(ds.as_numpy_iterator())
    return sorted((e["inputs"].decode(), e["targets"].decode()) for e in examples)


@pytest.mark.parametrize("name", PREPARED)
def test_tfds_and_the_original_files_give_one_text(name, tmp_path):
    tfds_name, tfds_split, split, records, expected = PREPARED[name]
    task = seqio.TaskRegistry.get(name)
    (tmp_path / "original").mkdir()
    write_originals(tmp_path / "original")
    context.set_context(data_dir=str(tmp_path / "original"))
    from_files = texts(task, split)
    assert expected in from_files
    assert task.source.num_input_examples(split) == len(records)
    ours = task.source.get_dataset(split, shuffle=True, seed=1).element_spec

    context.set_context()
    prepare_tfds(tmp_path / "tfds", tfds_name, {tfds_split: records})
    seqio.set_tfds_data_dir_override(str(tmp_path / "tfds"))
    assert texts(task, split) == from_files
    theirs = task.source.get_dataset(split, shuffle=False).element_spec
    # SQuAD's answers have positions besides, and TensorFlow Datasets knows that DPR's candidates are two.
    compared = set(ours) - {"answers", "candidates"}
    assert len(compared) >= 3
    assert {name: ours[name] for name in compared} == {name: theirs[name] for name in compared}


def test_every_raw_column_survives_the_way_through_rows():
    rows = [*MULTIRC, *MULTIRC]
    ds = columns.as_dataset(columns.take(columns.from_rows(rows), np.array([5, 0])))
    first, second = ds.as_numpy_iterator()
    assert first["answer"] == b"b" and second["answer"] == b"Ann"
    assert second["idx"] == {"paragraph": 2, "question": 3, "answer": 4}
    none = columns.from_rows([RECORD[1], RECORD[1]])
    assert [e["answers"].tolist() for e in columns.as_dataset(none).as_numpy_iterator()] == [[], []]


MULTIRC_FILE = super_glue.DATA_SETS["multirc"].local
RECORD_FILE = super_glue.DATA_SETS["record"].local
MRQA_FILE = question_answering.MRQA_SETS["drop"].local
SQUAD_FILE = question_answering.SQUAD.local


def multirc_line(paragraph: Any = 0, answer: Any = 0, **label):
    """A line of MultiRC with one answer."""
    answers = [{"text": "Ann", "idx": answer, **label}]
    questions = [{"question": "Who?", "idx": 0, "answers": answers}]
    return json.dumps({"idx": paragraph, "passage": {"text": "Ann.", "questions": questions}})


def record_line(*, answers: Any = (), end: Any = 2):
    """A line of ReCoRD with one query."""
    passage = {"text": "Ann.", "entities": [{"start": 0, "end": end}]}
    return json.dumps(
        {"idx": 0, "passage": passage, "qas": [{"query": "@", "idx": 0, "answers": answers}]}
    )


def mrqa_line(answers: Any):
    """A line of MRQA with one question."""
    return json.dumps({"context": "c", "qas": [{"qid": "m", "question": "q", "answers": answers}]})


def squad_file(answers: Any):
    """A file of SQuAD with one question."""
    question = {**SQUAD_QUESTION, "answers": answers}
    paragraph = {"context": "c", "qas": [question]}
    return json.dumps({"data": [{"title": "T", "paragraphs": [paragraph]}]})


WSC_LINE = json.dumps({"text": "a b", "target": {**SPANS, "span1_index": 1.5}, "idx": 0})


@pytest.mark.parametrize(
    ("fmt", "file", "content", "words"),
    [
        (MULTIRC_FILE, "a.jsonl", multirc_line(), [":1", "no label"]),
        (MULTIRC_FILE, "a.jsonl", multirc_line(answer=1.5, label=1), [":1", "'idx'"]),
        (
            MULTIRC_FILE,
            "a.jsonl",
            f"{multirc_line(label=1)}\n{multirc_line(label=0)}",
            [":2", ":1 has the same"],
        ),
        (RECORD_FILE, "a.jsonl", record_line(), [":1", "without answers"]),
        (RECORD_FILE, "a.jsonl", record_line(answers=[{"text": 3}]), [":1", "no text 'text'"]),
        (RECORD_FILE, "a.jsonl", record_line(end=4), [":1", "outside its passage"]),
        (RECORD_FILE, "a.jsonl", record_line(end=-1), [":1", "'end'"]),
        (MRQA_FILE, "a.jsonl", mrqa_line([]), [":1", "question 'm'", "no answer"]),
        (MRQA_FILE, "a.jsonl", mrqa_line("it"), [":1", "question 'm'", "no answer"]),
        (MRQA_FILE, "a.jsonl", mrqa_line([3]), [":1", "question 'm'", "not text"]),
        (MRQA_FILE, "a.jsonl", f"{mrqa_line(['a'])}\n{mrqa_line(['a'])}", [":2", "'qid'", "'m'"]),
        # Compression is seen from the content: this is read, and lacks its parts.
        (MRQA_FILE, "a.jsonl.gz", "{}", [":1", "'context'"]),
        (MRQA_FILE, "a.jsonl", mrqa_line(["\ud83d"]), [":1", "half a surrogate"]),
        (SQUAD_FILE, "a.json", squad_file([]), ["'q1'", "no answer"]),
        (SQUAD_FILE, "a.json", squad_file(None), ["question 'q1'", "no list 'answers'"]),
        (SQUAD_FILE, "a.json", squad_file(["a"]), ["question 'q1', answer 1 is no object"]),
        (
            SQUAD_FILE,
            "a.json",
            json.dumps({"data": [{"title": "T", "paragraphs": [{"qas": [{}]}]}]}),
            ["article 1, paragraph 1, question 1 has no text 'id'"],
        ),
        (SQUAD_FILE, "a.json", '{\n"data":\n[,]}', ["line 3, column"]),
        (super_glue.WSC["eval"].local, "a.jsonl", WSC_LINE, [":1", "'span1_index'"]),
        (super_glue.DPR.local, "train.c.txt", "s\np\na,b\na\n\n\ns\np\n", [":7", "2 lines"]),
        (MULTIRC_FILE, "a.jsonl", '{"idx": 0}', [":1", "'passage'", "MultiRC"]),
        (super_glue.WSC["eval"].local, "a.jsonl", '{"text": "a b", "target": {}}', [":1", "span1"]),
        (super_glue.DPR.local, "train.c.txt", "s\np\na,b\nc\n", [":4", "none of the candidates"]),
        (super_glue.DPR.local, "train.c.txt", "s\np\na,b,c\nc\n", [":3", "two candidates"]),
        (SQUAD_FILE, "a.json", '{"data": []}', ["no example"]),
        (
            glue.DATA_SETS["stsb"].local,
            "a.tsv",
            "sentence1\tsentence2\tscore\na\tb\tc",
            [":2", "number"],
        ),
    ],
)
def test_a_malformed_record_is_named(tmp_path, fmt, file, content, words):
    path = tmp_path / file
    path.write_text(content)
    with pytest.raises(DataError) as error:
        fmt.read([str(path)], "train")
    for word in [file, "Fix: ", *words]:
        assert word in str(error.value)


def test_cola_has_a_header_in_its_test_file_only(tmp_path):
    cola = glue.DATA_SETS["cola"].local
    train = write_jsonl(tmp_path / "train.tsv", ["gj04\t1\t\tThey ate.", "gj04\t0\t*\tAte they."])
    assert cola.read([str(train)], "train")["label"].tolist() == [1, 0]
    test = write_jsonl(tmp_path / "test.tsv", ["index\tsentence", "0\tThey ate."])
    read = cola.read([str(test)], "test")
    assert read["sentence"].tolist() == [b"They ate."] and read["label"].tolist() == [-1]


def test_corrupted_rows_of_qqp_are_left_out(tmp_path):
    qqp = glue.DATA_SETS["qqp"].local
    lines = ["id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "1\t2\t3\ta\tb\t1", "4\t5\t6\ta"]
    path = write_jsonl(tmp_path / "train.tsv", lines)
    assert qqp.read([str(path)], "train")["label"].tolist() == [1]


def test_a_winograd_index_beside_the_pronoun_is_named():
    task = seqio.TaskRegistry.get("super_glue_wsc_v102_simple_eval")
    with pytest.raises(Exception, match="span2_index is not that of the pronoun"):
        registry.texts(task, [{**WSC, "span2_index": 3}])


def test_a_truncated_gzip_file_is_named(tmp_path):
    content = gzip.compress((mrqa_line(["it"]) + "\n").encode())
    for name, damaged in (("short", content[:-12]), ("bad", content[:12] + b"\xff" * 20)):
        path = tmp_path / f"{name}.jsonl.gz"
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{name}.jsonl.gz is no complete gzip file.*Fix: "):
            MRQA_FILE.read([str(path)], "train")
