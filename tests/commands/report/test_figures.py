"""Panels as drawn: bars, scales, colours, and files that are always the same."""

import re

import matplotlib
from etils import epath

from prompt_tuning.commands.report import figures


def _panel(kind=figures.MEASURED, lines=2, name="panel"):
    series = tuple(
        figures.Series(
            label=f"line {index}",
            x=[1e6, 1e9],
            y=[40.0 + index, 80.0 + index],
            sd=[2.0, None],
            colour=index,
            kind=kind,
        )
        for index in range(lines)
    )
    ticks = ((1e6, "small"), (1e9, "large"))
    return figures.Panel(name, "Title", "subtitle", "score", series, ticks, kind)


def _axes(panel):
    (axes,) = figures._draw(panel).axes
    return axes


def test_sizes_are_on_a_log_scale_with_names_and_parameters():
    axes = _axes(_panel())
    assert axes.get_xscale() == "log" and axes.get_yscale() == "linear"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["small\n1M", "large\n1B"]


def test_bars_are_one_standard_deviation_each_way():
    container = _axes(_panel(lines=1)).containers[0]
    (bars,) = container.lines[2]
    (low, high), (no_low, no_high) = [segment[:, 1] for segment in bars.get_segments()]
    assert (low, high) == (38.0, 42.0)
    assert no_low == no_high == 80.0


def test_origins_differ_in_line_and_marker():
    looks = {}
    for kind in (figures.MEASURED, figures.PAPER, figures.OTHER):
        line = _axes(_panel(kind, lines=1)).containers[0].lines[0]
        looks[kind] = (line.get_linestyle(), line.get_markerfacecolor() == line.get_color())
    assert looks == {
        figures.MEASURED: ("-", True),
        figures.PAPER: ("--", False),
        figures.OTHER: (":", False),
    }


def test_lines_beyond_the_palette_are_still_different():
    panel = _panel(lines=12)
    drawn = [container.lines[0] for container in _axes(panel).containers]
    assert len({(line.get_color(), line.get_marker()) for line in drawn}) == 12


def test_only_the_known_colours_are_drawn():
    known = {*figures.SERIES_COLOURS, figures.INK, figures.MUTED, figures.GRID, figures.SURFACE}
    text = figures.svg(_panel(figures.PAPER, lines=6))
    # Without the names of metadata; matplotlib's default black would not turn light on a dark page.
    found = set(re.findall(r"#[0-9a-f]{6}\b", text))
    assert found <= known
    assert set(figures.SERIES_COLOURS) <= found


def test_the_same_panel_gives_the_same_files(tmp_path):
    first, second = epath.Path(tmp_path / "a"), epath.Path(tmp_path / "b")
    for folder in (first, second):
        folder.mkdir()
        figures.write(_panel(), folder)
    names = sorted(path.name for path in first.iterdir())
    assert names == ["panel.png", "panel.svg"]
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert (first / "panel.png").read_bytes().startswith(b"\x89PNG")


def test_settings_of_the_user_are_neither_used_nor_changed():
    plain = figures.svg(_panel())
    with matplotlib.rc_context({"axes.facecolor": "red", "lines.linewidth": 9}):
        assert figures.svg(_panel()) == plain
        assert matplotlib.rcParams["axes.facecolor"] == "red"
