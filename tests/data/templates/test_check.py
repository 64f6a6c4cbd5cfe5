"""Templates tried on records: what T0 drops, and what a user's own may not do."""

import pytest

from prompt_tuning.data.synthetic import benchmark
from prompt_tuning.data.templates.check import check_record, render_record
from prompt_tuning.data.templates.read import SHIPPED, read_templates
from prompt_tuning.data.templates.render import Renderer
from prompt_tuning.errors import DataError
from tests.data.templates.making import make

RECORD = {"text": "a", "label": 1}
ONE_PART = "{{ text }}{% if label > 5 %} ||| {{ text }}{% endif %}"


@pytest.mark.parametrize(
    ("jinja", "choices", "words"),
    [
        ("{{ txt }} ||| b", None, "names a field that is not there: got 'txt'.*Closest .*: text"),
        ("b ||| {{ answer_choices[0] }}", "{{ txt }}", "names a field that is not there"),
        ("{{ text }} ||| b ||| c", None, "jinja splits in 3: got 'a ||| b ||| c'"),
        (ONE_PART, None, "jinja splits in 1"),
        ("{# #} ||| b", None, "makes no inputs"),
        ("{{ text }} ||| {{ answer_choices[9] }}", "a ||| b", "makes no targets"),
        (
            "{{ text }} ||| c",
            "a ||| b",
            "none of answer_choices: got 'c', expected one of 'a', 'b'",
        ),
        ("{{ text.a.b }} ||| c", None, "reads what is not there"),
    ],
)
def test_a_users_own_template_drops_nothing_silently(jinja, choices, words):
    renderer = Renderer(make(jinja, choices))
    with pytest.raises(DataError) as error:
        check_record(renderer, RECORD, seed=0, has_label=True)
    assert str(error.value).startswith("my.yaml: template 'mine'")
    error.match(f"{words}.*")


def test_targets_may_be_withheld_where_no_label_is_needed():
    renderer = Renderer(make("{{ text }} ||| {{ answer_choices[9] }}", "a ||| b"))
    assert check_record(renderer, RECORD, seed=0, has_label=False).parts == ("a", "<NO LABEL>")


def test_of_promptsources_records_are_dropped_but_not_for_a_templates_fault():
    three = make("{{ names[0] }} ||| {{ text }}")
    record = {**RECORD, "names": ["a ||| b"]}
    assert len(render_record(Renderer(three), record, seed=0).parts) == 3
    assert render_record(Renderer(make(ONE_PART)), RECORD, seed=0).parts == ("a",)
    for jinja, words in [("{{ txt }} ||| b", "not there"), ("{{ text }} ||| b ||| c", "in 3")]:
        with pytest.raises(DataError, match=f"my.yaml: template 'mine'.*{words}"):
            render_record(Renderer(make(jinja)), RECORD, seed=0)


def test_the_packages_own_templates_write_their_records():
    found = read_templates(str(SHIPPED))
    suites: dict[str, list[str]] = {}
    for (dataset, subset), templates in found.items():
        assert len(templates) >= 3 and all(t.metrics for t in templates)
        suites.setdefault(dataset, []).append(str(subset))
        if dataset == "synthetic":
            for record in benchmark.rows(str(subset), "validation")[:20]:
                for template in templates:
                    check_record(Renderer(template), record, seed=0, has_label=True)
    assert sorted(suites["synthetic"]) == sorted(benchmark.FORMS)
    assert len(suites["super_glue"]) == 8


SUPER_GLUE = {
    "boolq": {"passage": "p", "question": "is q", "label": 1},
    "cb": {"premise": "p.", "hypothesis": "h.", "label": 2},
    "copa": {"premise": "P.", "question": "cause", "choice1": "A b.", "choice2": "C.", "label": 0},
    "multirc": {"paragraph": "p", "question": "q?", "answer": "a", "label": 0},
    "record": {"passage": "p", "query": "@placeholder q", "entities": ["A", "B"], "answers": ["B"]},
    "rte": {"premise": "p.", "hypothesis": "h.", "label": 1},
    "wic": {"word": "w", "sentence1": "a w", "sentence2": "b w", "label": 0},
    "wsc.fixed": {"text": "t", "span1_text": "Ann", "span2_text": "she", "label": 1},
}


@pytest.mark.parametrize("subset", SUPER_GLUE)
def test_the_packages_own_templates_for_super_glue(subset):
    (templates,) = read_templates(f"super_glue/{subset}").values()
    for template in templates:
        renderer = Renderer(template)
        check_record(renderer, SUPER_GLUE[subset], seed=0, has_label=True)
        if "label" in renderer.fields:
            withheld = {**SUPER_GLUE[subset], "label": -1}
            parts = check_record(renderer, withheld, seed=0, has_label=False).parts
            assert parts[1] == "<NO LABEL>"
