"""What no template may: reach Python, run without an end, make text without a bound."""

import pytest

from prompt_tuning.data.templates.render import Renderer
from prompt_tuning.errors import ConfigError, DataError, PromptTuningError
from tests.data.templates.making import make

RECORD = {"x": "abc", "names": ["Ann", "Bo"], "n": 3}
LOOP = "{{% set ns = namespace(s={}) %}}{{% for i in range(1000) %}}{{% set ns.s = {} %}}{{% endfor %}}"


def render(jinja, choices=None):
    return Renderer(make(jinja, choices))(RECORD, seed=0, truncate=False)


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__ }}",
        "{{ ''['__class__'] }}",
        "{{ x | attr('__class__') }}",
        "{{ names | map(attribute='__class__') | list }}",
        "{{ names | map('attr', '__class__') | list }}",
        "{{ names | selectattr('__class__') | list }}",
        "{{ names | sort(attribute='__class__') }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ '%s' % range }}",
        "{{ range.__globals__ }}",
        "{{ self }}",
        "{{ self['_TemplateReference__context'] }}",
        "{{ zip }}",
        "{{ x.upper }}",
        "{{ [x.upper] }}",
        "{% set ns = namespace() %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{% for i in names %}{{ loop._iterable }}{% endfor %}",
        "{{ names.append(1) }}",
        "{{ (1).to_bytes(9, 'big') }}",
        "{% include 'my.yaml' %}",
        "{% import 'os' as os %}",
        "{% extends x %}",
        "{{ lipsum() }}",
    ],
)
def test_nothing_reaches_python(text):
    for jinja, choices in ((text, None), ("a ||| b", text)):
        field = "jinja" if choices is None else "answer_choices"
        with pytest.raises(PromptTuningError, match=f"my.yaml: template 'mine': {field} .*Fix: "):
            render(jinja, choices)


ENDLESS = {
    "loops": "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "loops of nothing": "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
    "loops of text": "{% for a in range(99999) %}" + "y" * 90_000 + "{% endfor %}",
    "lists": "{% for a in range(9999) %}{% set b = range(99999) | list | sort %}{% endfor %}",
    "membership": "{% set b = range(99999) | list %}{% for a in b %}{{ a in b }}{% endfor %}",
    "lazy": "{% for a in zip(range(9999), range(9999)) %}{{ range(99999) | map('string') | join }}{% endfor %}",
    "product": "{% set a = 'a' * 10000000000 %}",
    "product of products": "{% set a = ('a' * 1000000) * 1000000 %}",
    "lists in lists": "{% set a = [[1] * 1000] * 1000000 %}",
    "doubled by +": LOOP.format("'a'", "ns.s + ns.s"),
    "doubled by ~": LOOP.format("'a'", "ns.s ~ ns.s"),
    "doubled by %": LOOP.format("'a'", "'%s%s' % (ns.s, ns.s)"),
    "doubled by replace": LOOP.format("'a'", "ns.s | replace('a', 'aa')"),
    "doubled by a method": LOOP.format("'a'", "ns.s.replace('a', 'aa')"),
    "doubled by join": LOOP.format("'a'", "ns.s.join([ns.s, ns.s])"),
    "doubled lists": LOOP.format("[1]", "ns.s + ns.s"),
    "lists of itself": LOOP.format("[1]", "[ns.s, ns.s]"),
    "dicts of itself": LOOP.format("[1]", "{1: ns.s, 2: ns.s}"),
    "long separators": "{{ range(99999) | join('a' * 99999) }}",
    "long replacements": "{{ range(99999) | map('replace', '', 'a' * 99999) | list }}",
    "squared numbers": LOOP.format("7", "ns.s * ns.s"),
    "wide formats": "{{ '%1000000000d' % 1 }}",
    "formats as wide as told": "{{ '%*d' | format(1000000000, 1) }}",
    "many digits": "{{ 25 | round(-1000000000) }}",
    "much stripped": "{{ ('a' * 999999) | trim('b' * 999999) }}",
    "range": "{% for a in range(1000000000) %}{% endfor %}",
    "numbers alike": "{% set a = range(0, 9 * 9223372036854775807, 2305843009213693951) %}",
}  # fmt: skip


@pytest.mark.parametrize("text", ENDLESS.values(), ids=ENDLESS)
def test_what_runs_forever_ends(text):
    """Where it is not bounded, time or memory end before the test does."""
    with pytest.raises(DataError, match="my.yaml: template 'mine': jinja .*Fix: "):
        render(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ 2 ** 9 }}", r"\*\* is used on line 1"),
        ("\n{% macro m() %}{{ m() }}{% endmacro %}", "macro is used on line 2"),
        ("{% for i in [[1]] recursive %}{{ loop(i) }}{% endfor %}", "a recursive loop"),
        ("{% block a %}{{ self.a() }}{% endblock %}", "block is used"),
        ("{{ x | center(9) }}", "does not parse .No filter named 'center'"),
        ("{{ x }}\n{{ 'a' if }}", "unexpected 'end of print statement'"),
        ("{% if x %}", "does not parse"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "cannot be compiled .RecursionError"),
        ("{% for i in names %}" * 30 + "{% endfor %}" * 30, "cannot be compiled .SyntaxError"),
        ("x" * 200_000, "more than 100,000 characters"),
    ],
)  # fmt: skip
def test_what_is_no_program_is_refused_before_any_record(text, words):
    with pytest.raises(ConfigError, match=f"my.yaml: template 'mine': jinja .*{words}.*Fix: "):
        Renderer(make(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{{ x.y.z }}", "reads what is not there.*no attribute 'y'"),
        ("{{ y.z }}", "reads what is not there.*'y' is undefined"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ [] | choice }}", "IndexError"),
        (r"{{ '\ud800' }}", "UnicodeEncodeError"),
        ("{{ 1 + x }}", "TypeError"),
    ],
)
def test_what_goes_wrong_names_file_template_and_field(text, words):
    with pytest.raises(DataError, match=f"my.yaml: template 'mine': jinja .*{words}.*Fix: "):
        render(text)


def test_many_records_in_turn_have_a_budget_each():
    renderer = Renderer(make("{% for i in range(300000) %}{% endfor %}a|||b"))
    with pytest.raises(DataError):
        renderer(RECORD, seed=0)
    renderer = Renderer(make("{% for i in range(90000) %}{% endfor %}{{ x }}|||b"))
    assert {renderer(RECORD, seed=0).parts for _ in range(9)} == {("abc", "b")}
