"""What was measured is put between the markers of a page, and the rest of it stays."""

import pytest

from prompt_tuning.errors import ConfigError
from prompt_tuning.launch import pages
from tests.helpers import REPO

EMPTY = f"{pages.BEGIN}\n{pages.END}\n"


def test_a_page_gets_the_text_and_keeps_the_rest(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{EMPTY}after\n")
    for text in ("first", "\nsecond\n\n| a |\n"):
        pages.write(page, text, title="A page")
        expected = ["before", pages.BEGIN, "", text.strip(), "", pages.END, "after", ""]
        assert page.read_text() == "\n".join(expected)


@pytest.mark.parametrize(
    "text", ["no place", pages.BEGIN, EMPTY + EMPTY, f"{pages.END}\n{pages.BEGIN}\n"]
)
def test_a_page_without_one_pair_of_markers_is_refused_unchanged(text, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ConfigError, match="has no place for what was measured"):
        pages.write(page, "new", title="A page")
    assert page.read_text() == text


def test_a_page_that_is_not_there_is_made_of_the_text_alone(tmp_path):
    page = tmp_path / "page.md"
    for text in ("first", "second"):
        pages.write(page, text, title="A page")
    assert page.read_text() == f"# A page\n\n{pages.BEGIN}\n\nsecond\n\n{pages.END}\n"


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("speed", "benchmarks.speed"),
        ("reproduction", "studies.reproduction"),
        ("t0", "studies.t0"),
    ],
)
def test_the_pages_here_have_a_place_and_name_their_command(name, module):
    text = (REPO / f"docs/measured/{name}.md").read_text()
    assert text.count(pages.BEGIN) == text.count(pages.END) == 1
    assert text.index(pages.BEGIN) < text.index(pages.END)
    assert f"python -m prompt_tuning.launch.{module}" in text
