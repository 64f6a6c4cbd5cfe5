"""The page: complete, self-contained, and looked at in a browser in both colour schemes."""

import re

import pytest

from prompt_tuning.commands.report import command, page
from tests.commands.browser import contrast, needs_chromium
from tests.commands.report import rows_fixture

_SCRIPT = "<script>document.title = 'taken'</script>"
_SCHEMES = ("light", "dark")
# Pixels: a desktop and a phone.
_WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Folder of a report with every kind of panel and table, failed, missing and torn rows."""
    folder = tmp_path_factory.mktemp("report")
    names = (
        "figure_1",
        "figure_1_multitask",
        "figure_3b",
        "table_2",
        "table_3",
        "table_4",
        "my_sweep",
    )
    found = [row for name in names for row in rows_fixture.rows(name)]
    found[0] |= {"status": "failed", "score": None, "error": f"NonFiniteError: {_SCRIPT}"}
    del found[13]
    rows_fixture.write(folder / "results", *found, '{"sweep": "fig')
    command.main([str(folder / "results"), f"--output_dir={folder / 'out'}"])
    return folder / "out"


@pytest.fixture(scope="module")
def html(report):
    return (report / "index.html").read_text()


def test_figures_are_there_as_png_and_svg(report):
    names = {path.name for path in (report / "figures").iterdir()}
    panels = ("figure_1.mini", "figure_1.published", "figure_3b.mini")
    assert names == {f"{name}.{kind}" for name in panels for kind in ("png", "svg")}


def test_the_page_needs_no_other_file(html):
    assert not re.search(r"\bsrc=|@import|url\((?!#)|<link(?! rel=\"icon\" href=\"data:,\")", html)
    links = set(re.findall(r'<a href="([^"]+)"', html))
    assert links and all(link.startswith(("#", "figures/")) for link in links)
    assert html.count("<svg ") == 3


def test_ids_are_unique_and_references_resolve(html):
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) > 50
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'(?:href="#|url\(#)([^")]+)', html))
    assert references and references <= set(ids)


def test_failed_missing_and_torn_are_told(html):
    assert re.search(r"results.jsonl, line \d+ is torn and was left out\.", html)
    assert "Of 96 cells: 94 done, 1 failed, 1 missing." in html
    assert "size=pico,method=prompt,task=synthetic_boolq,seed=0: NonFiniteError" in html
    assert "size=pico,method=model,task=synthetic_cb,seed=1" in html
    assert "Not measured: the results hold no row of this experiment." in html


def test_commands_devices_and_versions_are_told(html):
    assert "prompt-tuning sweep prompt_tuning/configs/paper/figure_3b.gin --scale=mini" in html
    assert "Device: cpu. Versions: jax 0.10.2, prompt-tuning 0.1.0." in html
    assert re.search(r"<code>prompt-tuning report \S+ --output_dir=", html)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Folder of a report of rows that try to be more than text, in every place that holds text."""
    folder = tmp_path_factory.mktemp("hostile")
    attack = f"../../x\"'><img src=x onerror='document.title=1'>{_SCRIPT}</svg>--></style>$\\frac{{ \\g<9>"
    found = []
    for sweep in ("figure_3b", attack):
        axes = {"size": "mini", "init": attack, attack: "1", "task": attack, "seed": 0}
        row = rows_fixture.row(sweep, axes, scale=attack)
        texts = dict.fromkeys(
            ("title", "cell", "device", "command", "sweep_command", "model_dir", "log"), attack
        )
        row |= texts | {"versions": {attack: attack}, "evaluations": {attack: {attack: 1.0}}}
        found += [row, {**row, "cell": f"failed {attack}", "status": "failed", "error": attack}]
    rows_fixture.write(folder / "results", *found)
    command.main([str(folder / "results"), f"--output_dir={folder / 'out' / 'x'}"])
    assert {path.name for path in folder.iterdir()} == {"results", "out"}
    assert {path.name for path in (folder / "out").iterdir()} == {"x"}
    return folder / "out" / "x"


def test_names_of_rows_are_no_markup_of_figures(hostile):
    html = (hostile / "index.html").read_text()
    assert _SCRIPT not in html and "<img" not in html
    assert len(list((hostile / "figures").iterdir())) >= 2
    for svg in (hostile / "figures").glob("*.svg"):
        assert "<script" not in svg.read_text() and "<img" not in svg.read_text()


@needs_chromium
def test_no_row_runs_a_script_or_sends_a_request(browser, hostile):
    tab = browser.new_page()
    requests, stopped = [], []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("requestfailed", lambda request: stopped.append((request.url, request.failure)))
    tab.goto(f"file://{hostile}/index.html")
    assert tab.title() == page.TITLE
    # The page's own script runs, one that comes into it later does not.
    tab.locator("th button").first.click()
    assert tab.locator("th[aria-sort]").count() == 1
    tab.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "document.title = 'taken'";
          document.body.append(script);
          new Image().src = "https://example.com/x.png";
          return fetch("https://example.com/").catch(() => null);
        }"""
    )
    assert tab.title() == page.TITLE
    sent = [url for url in requests if not url.startswith(("file://", "data:"))]
    # The browser tells of what its policy stops before it leaves.
    assert all((url, "csp") in stopped for url in sent), (sent, stopped)
    tab.close()


def test_texts_of_rows_are_no_html(html):
    assert _SCRIPT not in html
    assert "NonFiniteError: &lt;script&gt;" in html


@pytest.fixture
def open_page(browser, report):
    """Opens the page; at the end nothing may have been complained about or asked of a network."""
    opened, complaints, requests = [], [], []

    def open_in(scheme, width):
        tab = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
        opened.append(tab)
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(f"file://{report}/index.html")
        return tab

    yield open_in
    for tab in opened:
        tab.close()
    assert opened and complaints == []
    assert [url for url in requests if not url.startswith(("file://", "data:"))] == []


def _texts(tab, table, column):
    """What a column of a table shows, top to bottom."""
    cells = tab.locator(f"{table} tbody td:nth-child({column})")
    return [text.strip() for text in cells.all_inner_texts()]


@needs_chromium
def test_a_table_is_sorted_by_a_click(open_page):
    tab = open_page("dark", 1280)
    table = "#figure_1 .table.other table"
    heading = tab.locator(f"{table} th").nth(1)
    small = ["40.6", "59.8 ± 0.8", "62.8 ± 0.8", "64.5 ± 0.3", "64.6 ± 0.2"]
    heading.get_by_role("button").click()
    # The paper's own row has no number for Small: last, whichever way.
    assert _texts(tab, table, 2) == [*small, ""]
    assert heading.get_attribute("aria-sort") == "ascending"
    heading.get_by_role("button").click()
    assert _texts(tab, table, 2) == [*reversed(small), ""]
    assert heading.get_attribute("aria-sort") == "descending"
    tab.locator(f"{table} th").nth(0).get_by_role("button").click()
    names = _texts(tab, table, 1)
    assert names == sorted(names) and len(names) == 6
    assert heading.get_attribute("aria-sort") is None


@needs_chromium
def test_counts_are_sorted_as_numbers(open_page):
    tab = open_page("light", 1280)
    table = "#table_4 .table.paper table"
    tab.locator(f"{table} th").nth(2).get_by_role("button").click()
    cells = tab.locator(f"{table} tbody td:nth-child(3)")
    # A cell's mark is an element of its own behind the number.
    texts = cells.evaluate_all("cells => cells.map(cell => cell.firstChild.textContent)")
    counts = [int(text.replace(",", "")) for text in texts]
    assert counts[:3] == [512, 768, 1_024] and counts == sorted(counts) and len(counts) == 30


@needs_chromium
@pytest.mark.parametrize("scheme", _SCHEMES)
@pytest.mark.parametrize("width", _WIDTHS)
def test_nothing_is_wider_than_the_window_or_outside_a_figure(open_page, scheme, width):
    tab = open_page(scheme, width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    outside = tab.evaluate("""() => [...document.querySelectorAll('figure svg')].map(svg => {
      const box = svg.getBBox(), view = svg.viewBox.baseVal;
      return Math.min(box.x, box.y, view.width - box.x - box.width, view.height - box.y - box.height);
    })""")
    assert len(outside) == 3 and min(outside) >= -0.01
    fits = tab.evaluate("""() => [...document.querySelectorAll('figure svg')].map(svg =>
      svg.getBoundingClientRect().width / svg.parentElement.clientWidth)""")
    assert all(0.5 < share <= 1 for share in fits)


@needs_chromium
@pytest.mark.parametrize("scheme", _SCHEMES)
def test_everything_can_be_read_in_both_schemes(open_page, scheme):
    tab = open_page(scheme, 1280)
    resolve = """names => names.map(name => {
      const probe = document.body.appendChild(document.createElement('p'));
      probe.style.color = `var(--${name})`;
      return getComputedStyle(probe).color;
    })"""
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (contrast(background, "rgb(255, 255, 255)") < 1.1) == (scheme == "light")
    # WCAG 2: 4.5 for text, 3 for lines and markers.
    for colour in tab.evaluate(resolve, ["ink", "muted", "link"]):
        assert contrast(colour, background) >= 4.5
    for colour in tab.evaluate(resolve, [f"s{index}" for index in range(6)]):
        assert contrast(colour, background) >= 3
    warning, surface = tab.evaluate(resolve, ["warn", "warn-surface"])
    assert contrast(warning, surface) >= 4.5
    # The drawn figures take these colours.
    texts = tab.evaluate("""() => [...document.querySelectorAll('figure svg [id*="text_"] g')]
      .map(text => getComputedStyle(text).fill)""")
    (ink,) = tab.evaluate(resolve, ["ink"])
    assert len(texts) > 30 and set(texts) == {ink}
