"""The page in a browser, with the real server behind it: by keyboard alone, in both colour schemes, on a phone."""

import numpy as np
import pytest

from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.commands.inspect import frozen_tokens, neighbours
from tests.commands.browser import contrast, needs_chromium
from tests.commands.serve.conftest import KEY
from tests.commands.serve.test_completions import TEXTS
from tests.tiny_run import EMB_DIM

pytestmark = needs_chromium
# What browsers say of a refusal, and of a script that the page's policy stops.
_EXPECTED = ("Failed to load resource", "Executing inline script violates")
_NAME = "<b>bold</b>"
# Unit: ms. Others may use the machine too.
_PATIENCE = 30_000


@pytest.fixture
def open_page(browser, served):
    """Opens the page; at the end the browser may have complained of nothing but these, and asked nobody else."""
    tabs, complaints, asked = [], [], []

    def open_in(scheme="light", width=1280, key=KEY):
        tab = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        tabs.append(tab)
        tab.set_default_timeout(_PATIENCE)
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(f"http://127.0.0.1:{served.port}/")
        if key:
            tab.locator("#key").fill(key)
            tab.locator("#key").press("Enter")
            tab.locator("#model option").first.wait_for(state="attached")
        return tab

    yield open_in
    for tab in tabs:
        tab.close()
    assert [text for text in complaints if not text.startswith(_EXPECTED)] == []
    assert asked and all(url.startswith(f"http://127.0.0.1:{served.port}/") for url in asked)


def _wait(tab, condition):
    """Waits until an expression of the page holds."""
    # What waits inside the page would be a script that the policy stops.
    for _ in range(_PATIENCE // 50):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(50)
    raise AssertionError(condition)


def test_by_keyboard_from_key_to_answers(open_page, served):
    tab = open_page(key=None)
    field = tab.locator("#key")
    field.wait_for()
    assert "--api_key_file" in tab.inner_text("#state")
    field.focus()
    tab.keyboard.type(KEY)
    tab.keyboard.press("Enter")
    tab.locator("#model option[value=cb]").wait_for(state="attached")
    names = tab.locator("#model option").all_inner_texts()
    assert {"boolq", "cb"} <= set(names)
    assert tab.evaluate("document.activeElement.id") == "model"
    tab.keyboard.type("cb")
    tab.keyboard.press("Tab")
    tab.keyboard.insert_text("\n".join(TEXTS[:2]))
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    tab.keyboard.type("true, false")
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.keyboard.press("Control+Enter")
    _wait(tab, "document.querySelectorAll('#answers > li:not([aria-busy])').length === 2")
    assert tab.inner_text("#progress") == "2 of 2 examples answered by cb."
    for text, card in zip(TEXTS[:2], tab.locator("#answers > li").all(), strict=True):
        _, completion, _ = served.ask("/v1/completions", {"model": "cb", "prompt": text})
        (choice,) = completion["choices"]
        cut = " … cut here" if choice["finish_reason"] == "length" else ""
        shown = card.locator(".generated").text_content()
        assert shown == (choice["text"] or "an empty answer") + cut
        body = {"model": "cb", "prompt": text, "labels": ["true", "false"]}
        scores = served.ask("/v1/score", body)[1]["data"][0]["scores"]
        best = max(scores, key=lambda score: score["probability"])
        rows = card.locator(".labels li").all_inner_texts()
        assert rows[0].split("\n") == [best["label"], f"{100 * best['probability']:.1f} %"]
        assert len(rows) == 2
        assert "first token" in card.locator(".times").inner_text()
        assert card.locator(".warning").is_hidden()


def test_nearest_words_are_those_of_inspect(open_page, served, inputs):
    tab = open_page()
    tab.locator("#model").select_option("boolq")
    tab.locator("#words summary").press("Enter")
    _wait(tab, "document.querySelectorAll('#words tbody tr').length === 4")
    told = served.ask("/v1/prompts/boolq/neighbours")[1]["rows"]
    table = frozen_tokens.read_table(open_source(inputs.checkpoint), EMB_DIM)
    # Of the 356 ids that the vocabulary names, the table has a row for 256.
    found = neighbours.find_nearest(np.load(served.prompts["boolq"]), [(0, table)], 5)
    distances = [[one["distance"] for one in row["neighbours"]] for row in told]
    np.testing.assert_allclose(distances, found.distances, atol=1e-4)
    for row, line in zip(told, tab.locator("#words tbody tr").all(), strict=True):
        words = [one["token"] for one in row["neighbours"]]
        assert line.locator(".word").all_text_contents() == words
    assert served.ask("/v1/prompts/nobody/neighbours")[0] == 404


def test_what_is_no_text_stays_text_and_errors_are_the_servers(open_page, served):
    tab = open_page()
    listed = {"data": [{"id": _NAME}]}
    tab.route("**/v1/models", lambda route: route.fulfill(json=listed))
    tab.evaluate("refresh()")
    _wait(tab, "document.getElementById('model').value.startsWith('<b>')")
    assert tab.locator("#model option").all_inner_texts() == [_NAME]
    tab.locator("#examples").fill("<img src=x onerror='document.title=1'> is shown\n" * 2)
    tab.locator("#examples").press("Control+Enter")
    _wait(tab, "document.querySelectorAll('#answers > li:not([aria-busy])').length === 2")
    message = served.ask("/v1/completions", {"model": _NAME, "prompt": "a"})[1]["error"]["message"]
    assert tab.locator("#answers .warning").all_inner_texts() == [message] * 2
    assert "not" in tab.inner_text("#progress") and _NAME in tab.inner_text("#progress")
    assert tab.locator("main b, main img").count() == 0
    tab.evaluate("""() => {
      const script = document.createElement("script");
      script.textContent = "document.title = 'taken'";
      document.body.append(script);
    }""")
    assert tab.title() == "prompt-tuning"


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_it_can_be_read_in_both_schemes_without_scrolling_sideways(open_page, scheme, width):
    tab = open_page(scheme, width)
    tab.locator("#examples").fill(f"{'x' * 300}\n\n{TEXTS[0]}\n{TEXTS[2]}")
    tab.locator("input[value=block]").check()
    tab.locator("#labels").fill("true, false")
    tab.locator("#words summary").press("Enter")
    tab.locator("#labels").press("Control+Enter")
    _wait(tab, "document.querySelectorAll('#answers > li:not([aria-busy])').length === 2")
    _wait(tab, "document.querySelectorAll('#words tbody tr').length > 0")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    surface = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (contrast(surface, "rgb(255, 255, 255)") < 1.1) == (scheme == "light")
    seen = tab.evaluate("""() => ['.hint', '.times', 'blockquote', '#send', 'li .generated'].map(name => {
      const place = document.querySelector(name);
      const behind = place.matches('button') ? place : place.closest('form') ?? document.body;
      return [getComputedStyle(place).color, getComputedStyle(behind).backgroundColor];
    })""")
    # WCAG 2: 4.5 for text.
    assert all(contrast(text, behind) >= 4.5 for text, behind in seen) and len(seen) == 5
