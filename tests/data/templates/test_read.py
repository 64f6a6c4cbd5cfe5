"""Templates from files: what is read of each form, and what is refused, named by file and line."""

import io
import tarfile

import pytest

from prompt_tuning.data.templates import read
from prompt_tuning.data.templates.read import Template, read_templates
from prompt_tuning.errors import PromptTuningError

ENTRY = """\
  5f0-1: !Template
    name: does it follow
    id: 5f0-1
    reference: ''
    jinja: '{{premise}} {{hypothesis}}? ||| {{answer_choices[label]}}'
    answer_choices: yes ||| no
    metadata: !TemplateMetadata
      original_task: true
      choices_in_prompt: null
      languages: [en]
      metrics: [Accuracy, Other]
"""
OTHER = "  5f0-0: !Template {name: another, jinja: '{{premise}} ||| {{hypothesis}}'}\n"
RTE = f"dataset: super_glue\nsubset: rte\ntemplates:\n{ENTRY}{OTHER}"
TREC = f"dataset: trec\ntemplates:\n{OTHER}"


def read_text(tmp_path, text):
    path = tmp_path / "my.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_templates(str(path))


def test_a_file_says_whose_templates_it_holds(tmp_path):
    found = read_text(tmp_path, RTE)
    assert list(found) == [("super_glue", "rte")]
    assert [template.name for template in found["super_glue", "rte"]] == [
        "another",
        "does it follow",
    ]
    assert found["super_glue", "rte"][1] == Template(
        name="does it follow",
        id="5f0-1",
        jinja="{{premise}} {{hypothesis}}? ||| {{answer_choices[label]}}",
        answer_choices="yes ||| no",
        original_task=True,
        choices_in_prompt=None,
        metrics=("Accuracy", "Other"),
        source=str(tmp_path / "my.yaml"),
    )
    assert found["super_glue", "rte"][1].task_name("super_glue_rte") == (
        "super_glue_rte_does_it_follow"
    )


def test_a_folder_and_an_archive_hold_the_same(tmp_path):
    folder = tmp_path / "templates"
    with tarfile.open(tmp_path / "promptsource-0.2.3.tar.gz", "w:gz") as archive:
        for name, text in (("super_glue/rte", RTE), ("trec", TREC)):
            (folder / name).mkdir(parents=True)
            (folder / name / "templates.yaml").write_text(text)
            member = tarfile.TarInfo(f"../p-0.2.3/promptsource/templates/{name}/templates.yaml")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
        archive.addfile(tarfile.TarInfo("p-0.2.3/setup.py"), io.BytesIO(b""))
    found = [read_templates(str(p)) for p in (folder, tmp_path / "promptsource-0.2.3.tar.gz")]
    assert list(found[0]) == list(found[1]) == [("super_glue", "rte"), ("trec", None)]
    for key, templates in found[0].items():
        assert [t.jinja for t in templates] == [t.jinja for t in found[1][key]]
    # Nothing was unpacked.
    assert {path.name for path in tmp_path.iterdir()} == {"templates", "promptsource-0.2.3.tar.gz"}


def test_the_packages_own_are_found_by_their_name():
    found = read_templates("super_glue/rte/templates.yaml")
    assert list(found) == [("super_glue", "rte")]


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n"
    for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            RTE.replace("yes ||| no", "!!python/object/apply:os.system ['true']"),
            ":9 cannot be read .*python/object/apply:os.system",
        ),
        (RTE.replace("!TemplateMetadata", "!Metadata"), ":10 .*'!Metadata'"),
        (RTE.replace("name: does it follow", "name: [does"), ":6 cannot be read"),
        (RTE + ENTRY, "the key '5f0-1' is there twice"),
        (RTE.replace("another", "does it follow"), "two templates of one name"),
        (RTE.replace("yes ||| no", "Yes"), "'does it follow' has 'answer_choices'.*got 'True'"),
        (
            RTE.replace("answer_choices: yes", "answer_choice: yes"),
            "unknown field: got 'answer_choice', .*answer_choices",
        ),
        (RTE.replace("    name: does it follow\n", ""), "template '5f0-1' has 'name'"),
        (RTE.replace("!Template {", "!Template [").replace("'}\n", "']\n"), "expected a mapping"),
        ("dataset: a\ntemplates: {}\n", "holds no templates"),
        ("- a\n", "holds no templates"),
        (b"dataset: \xff\n", "not UTF-8"),
        ("a: " + "[" * 2000, "recursion"),
        (BOMB + "dataset: *l\ntemplates: {a: !Template {name: a, jinja: b}}", "'dataset' of anoth"),
        ("x" * 2_000_001, "too large"),
    ],
)
def test_what_is_no_file_of_templates_is_named(tmp_path, text, words):
    with pytest.raises(PromptTuningError, match=f"my.yaml(?s:.*){words}.*Fix: "):
        read_text(tmp_path, text)


def test_what_cannot_be_found_is_named(tmp_path):
    (tmp_path / "my.yaml").write_text(TREC)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8bno archive")
    for name, words in [
        ("mi.yaml", "do not exist.*Closest matches: my.yaml"),
        ("a.tar.gz", "no complete archive"),
        ("empty", "no templates"),
    ]:
        with pytest.raises(PromptTuningError, match=words):
            read_templates(str(tmp_path / name))
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(PromptTuningError, match=r"\.yaml, \.yml, \.tar\.gz"):
        read_templates(str(tmp_path / "a.json"))


def test_an_archive_that_grows_is_left_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "_ARCHIVE_BYTES", 50_000)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        for n in range(6):
            member = tarfile.TarInfo(f"p/{n}/zeros")
            member.size = 10_000
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(PromptTuningError, match="a.tgz is too large"):
        read_templates(str(tmp_path / "a.tgz"))
