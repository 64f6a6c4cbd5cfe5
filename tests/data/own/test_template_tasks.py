"""A user's files in several templates: the tasks of a YAML file, and what is refused before a run."""

from typing import cast

import pytest
import seqio

from prompt_tuning import cli
from prompt_tuning.data import batches
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.data.own.file_tasks import from_files
from prompt_tuning.data.sources import RecordFilesDataSource
from prompt_tuning.errors import ConfigError, DataError
from tests.data.local_data import write_jsonl

NAME = "template_tasks_test"
LIKED = """\
  a: !Template
    name: was it liked?
    answer_choices: no ||| yes
    jinja: '{{ text }} was it liked ||| {{ answer_choices[label] }}'
"""
WRITE = """\
  b: !Template
    name: write
    jinja: 'write {{ ["bad", "good"][label] }} ||| {{ text }}'
    metadata: !TemplateMetadata {metrics: [Squad]}
"""
ROWS = [{"id": i, "text": f"song {i} ||| a", "label": i % 2} for i in range(4)]


@pytest.fixture(autouse=True)
def clean(vocabulary):
    yield
    for registry in (seqio.MixtureRegistry, seqio.TaskRegistry):
        for name in [name for name in registry.names() if name.startswith(NAME)]:
            registry.remove(name)


def register(tmp_path, text=LIKED + WRITE, rows=ROWS, **settings):
    (tmp_path / "my.yaml").write_text(f"dataset: songs\ntemplates:\n{text}")
    files = {n: str(write_jsonl(tmp_path / f"{n}.jsonl", rows)) for n in ("train", "validation")}
    return from_files(NAME, templates=str(tmp_path / "my.yaml"), **files, **settings)


def texts(name, split="validation"):
    ds = seqio.TaskRegistry.get(name).get_dataset(None, split=split, shuffle=False)
    return [
        (e["inputs_pretokenized"].decode(), e["targets_pretokenized"].decode())
        for e in ds.as_numpy_iterator()
    ]


def test_each_template_is_a_task_and_all_are_a_mixture(tmp_path):
    assert register(tmp_path) == register(tmp_path) == NAME
    liked, write = f"{NAME}_was_it_liked_", f"{NAME}_write"
    assert {t.name for t in seqio.MixtureRegistry.get(NAME).tasks} == {liked, write}
    ranked = seqio.MixtureRegistry.get(f"{NAME}_score_eval").tasks
    assert [(t.name, set(t.splits)) for t in ranked] == [(f"{liked}_score_eval", {"validation"})]
    assert texts(liked)[1] == ("song 1 ||| a was it liked", "yes")
    assert texts(write, "train")[0] == ("write bad", "song 0 ||| a")
    assert [t for _, t in texts(f"{liked}_score_eval")[:4]] == ["no", "yes", "no", "yes"]
    lengths = {"inputs": 16, "targets": 8}
    assert batches.check_dataset(DatasetConfig(NAME, lengths, "train", 4)) is not None


@pytest.mark.parametrize(
    ("text", "rows", "words"),
    [
        (LIKED, [ROWS[0], {"text": "a", "lable": 1}], ":2: .*my.yaml.*'was it liked.*got 'label'"),
        (LIKED.replace("{{ text }}", "{{ tekst }}"), ROWS, ":1: .*not there: got 'tekst'"),
        (LIKED, [ROWS[0], {"text": "a", "label": 2}], ":2: .*makes no targets"),
        (LIKED.replace("[label] }}", "[0] }}s"), ROWS, ":1: .*none of answer_choices"),
        (WRITE.replace("{{ text }}'", "{{ text }} ||| c'"), ROWS, ":1: .*splits in 3"),
        (WRITE.replace("{{ text }}'", "{{ text * 10000000 }}'"), ROWS, ":1: .*jinja "),
        (WRITE, [*ROWS, ROWS[1]], ":5 has the 'id' of an earlier"),
    ],
)
def test_a_record_that_a_template_fails_on_is_named(tmp_path, text, rows, words):
    register(tmp_path, text, rows)
    path = str(tmp_path / "train.jsonl")
    (task,) = seqio.MixtureRegistry.get(NAME).tasks
    fmt = cast(RecordFilesDataSource, task.source).form
    with pytest.raises(DataError, match=f"train.jsonl{words}.*Fix: "):
        fmt.read([path], "train")


@pytest.mark.parametrize(
    ("text", "settings", "words"),
    [
        (LIKED, {"inputs": "{text}"}, "tasks.from_files.inputs is set beside"),
        (LIKED, {"label_map": {0: "a", 1: "b"}}, "tasks.from_files.label_map is set beside"),
        (LIKED, {"metrics": ["acuracy"]}, "Unknown metric"),
        (LIKED + WRITE.replace("write\n", "was it liked!\n"), {}, "task's name of another"),
        (LIKED.replace("no ||| yes", "no {{ ''.__class__ }}"), {}, "answer_choices does what no"),
    ],
)
def test_a_wrong_setting_is_refused_before_any_file_is_read(tmp_path, text, settings, words):
    with pytest.raises(ConfigError, match=f"{words}.*Fix: "):
        register(tmp_path, text, **settings)
    with pytest.raises(ConfigError, match="of several data sets"):
        from_files(NAME, templates="super_glue", train="train.jsonl")


def test_the_command_shows_records_rendered_and_names_what_fails(tmp_path, tiny_vocabulary, capsys):
    register(tmp_path)
    lines = ["MIXTURE_OR_TASK_NAME = @tasks.from_files()"]
    settings = {"name": NAME, "templates": str(tmp_path / "my.yaml")}
    settings["train"] = str(tmp_path / "train.jsonl")
    lines += [f"tasks.from_files.{name} = {value!r}" for name, value in settings.items()]
    gin_file = write_jsonl(tmp_path / "task.gin", lines)
    command = ["tasks", "show", f"--gin_file={gin_file}", f"--vocabulary={tiny_vocabulary}"]
    command += ["--extra_ids=0", "--num_examples=1"]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    for line in (
        '  raw      {"id": 0, "text": "song 0 ||| a", "label": 0}\n',
        "    text     song 0 ||| a was it liked\n",
        "    text     no\n",
        "  choices    no ||| yes\n",
        "    text     write bad\n",
    ):
        assert line in printed
    (tmp_path / "my.yaml").write_text(f"dataset: songs\ntemplates:\n{LIKED.replace('text', 'txt')}")
    assert cli.main(command) == 2
    assert "'was it liked?' names a field that is not there" in capsys.readouterr().err
