"""promptsource's rules: beside plain Jinja with them, and the traps of each."""

import random
from collections import Counter

import jinja2
import pytest

from prompt_tuning.data.templates.render import Renderer, example_seed, fixed_choices
from tests.data.templates.making import make

GUARD = "3ed2dface8203c4c9dfb1a5dc58e41e0"


def promptsource(jinja, choices, record, seed, *, truncate=True):
    """The rules as the reference README tells them, over Jinja as it is: compiled for every record."""

    def most_frequent(items):
        counts = Counter(items).most_common()
        return [item for item, n in counts if n == counts[0][1]] or None

    env = jinja2.Environment()
    env.globals["zip"] = zip
    env.filters |= {"choice": lambda items: random.choice(items), "most_frequent": most_frequent}
    random.seed(seed)
    if truncate:
        jinja = jinja.replace("}}", " | string | truncate(2048) }}")
    program = env.from_string(jinja)
    record = {k: v.replace("|||", GUARD) if isinstance(v, str) else v for k, v in record.items()}
    answers = choices and [
        text.strip().replace(GUARD, "|||")
        for text in env.from_string(choices).render(record).split("|||")
    ]
    text = program.render({**record, "answer_choices": answers})
    parts = tuple(part.replace(GUARD, "|||").strip() for part in text.split("|||"))
    return parts, answers and tuple(answers)


RECORD = {
    "text": "a ||| b c",
    "long": "word " * 500,
    "label": 1,
    "none": None,
    "names": ["Ann", "Bo", "Cy"],
    "spans": {"text": ["x", "y"], "items": [1]},
    "turns": [{"who": "a", "says": "hi"}, {"who": "b", "says": "ho"}],
}
TEMPLATES = [
    ("{{ text }} ||| {{ answer_choices[label] }}", "no ||| yes"),
    ("{{ long }} {{ long if label else '' }} ||| {{ none }}", None),
    ("{{ long + long }} {{ names | join(', ') }} ||| {{ answer_choices[7] }}", "a|||b"),
    (
        "{% for turn in turns %}{{ (loop.index % 2) }} {{ turn.who }}: {{ turn.says }}\n{% endfor %}",
        "{{ names | join('|||') }}",
    ),
    ("{{ names | choice }} {{ ['p', 'q', 'r'] | choice }} {{ names | choice }}", None),
    (
        "{{ (['p', 'q'] | choice) ~ text ~ (['s', 't', 'u'] | choice) }}",
        "{{ ['v', 'w'] | choice }} ||| {{ names | choice }}",
    ),
    (
        "{% set x = ['p', 'q', 'r', 's'] | choice %}{% for n in names %}{{ x }}{{ [n, 'z'] | choice }}{% endfor %}",
        None,
    ),
    ("{{ ((['a', 'b'] | choice) * label) }} {{ ('%s' % (['a', 'b'] | choice)) }}", None),
    ("{{ ((['a', 'b'] | choice) + text) }} {{ names | random }} {{ ['a', 'b'] | choice }}", None),
    ("{{ spans.text }} {{ spans['items'] }} {{ names | most_frequent }}", None),
    (
        "{{ text.split(' ') | length }} {% for a, b in zip(names, range(9)) %}{{ a.lower() }}{{ b }}{% endfor %}",
        None,
    ),
    (
        "{% set ns = namespace(n=0) %}{% for n in names if n != 'Bo' %}"
        "{% set ns.n = ns.n + loop.index %}{% endfor %}{{ ns.n }}",
        None,
    ),
    (
        "{{ missing }} {{ missing | default('d') }} {{ names[5] }} {{ names[-1] | replace('C', text) | trim }}",
        None,
    ),
    (
        "{% raw %}{{ text }}{% endraw %}{# no #}\n\n {%- if label == 1 %} x {% endif %} ||| |||",
        None,
    ),
    (
        "{{ 2.5 | round | int }} {{ names | map('upper') | list }}"
        "{{ turns | selectattr('who', 'equalto', 'b') | map(attribute='says') | first }}",
        None,
    ),
]


@pytest.mark.parametrize(("jinja", "choices"), TEMPLATES)
def test_renders_are_those_of_plain_jinja_with_the_rules(jinja, choices):
    renderer = Renderer(make(jinja, choices))
    for seed in range(6):
        for truncate in (True, False):
            found = renderer(RECORD, seed=seed, truncate=truncate)
            wanted = promptsource(jinja, choices, RECORD, seed, truncate=truncate)
            assert (found.parts, found.answer_choices) == wanted


def test_some_templates_draw_before_they_render():
    """Else the test above would not tell the order of draws."""
    jinja, choices = next(some for some in TEMPLATES if " ~ text" in some[0])
    drawn = {Renderer(make(jinja, choices))(RECORD, seed=seed).parts for seed in range(20)}
    assert len(drawn) > 3


def test_names_of_columns_and_long_values():
    record = {"a-b": "x" * 2053, "c": "x" * 2054, "d": "word " * 500}
    cut = Renderer(make("{{ a_b }}|||{{ c }}|||{{ d }}"))(record, seed=0).parts
    assert [len(part) for part in cut] == [2053, 2048, 2047]
    assert cut[1].endswith("x...") and cut[2].endswith("word...")


def test_fixed_choices_need_no_record():
    assert fixed_choices(make("a|||b", "{{ ['no', 'yes'] | join(' ||| ') }}")) == ("no", "yes")
    assert fixed_choices(make("a|||b", "{{ a }} ||| b")) is None
    assert fixed_choices(make("a|||b")) is None
    assert Renderer(make("{{ a }}{{ range(b) }}|||{{ answer_choices }}", "{{ c }}")).fields == {
        *"abc"
    }


def test_the_seed_of_an_example_is_its_own():
    record = {"text": "é", "n": [1, None]}
    assert example_seed(3, record) == example_seed(3, dict(reversed(record.items())))
    assert len({example_seed(seed, {"n": n}) for seed in range(9) for n in range(9)}) == 81
