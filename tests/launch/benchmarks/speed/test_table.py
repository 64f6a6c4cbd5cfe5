"""Figures become lines of a table."""

import dataclasses

from prompt_tuning.launch.benchmarks.speed import table
from prompt_tuning.launch.benchmarks.speed.rows import ROWS
from tests.helpers import REPO


def _answers(seconds, peak=0):
    rounds = [{"seconds": x, "cpu_seconds": 2 * x} for x in seconds]
    return {"rounds": rounds, "peak_bytes": peak * 2**20}


def test_a_step_is_the_median_of_its_rounds_and_memory_is_the_plain_variants():
    lines = table.lines_of(
        ROWS["step"], {"": _answers([9.0, 2.0, 1.0], 100)}, _answers([3.0, 0.1, 8.0], 150)
    )
    assert lines == [
        "| step, batch 8 x 256 | s | 2.00 | 3.00 | 1.50 | 1.50 |",
        "| peak memory of the process, step, batch 8 x 256 | MiB | 100 | 150 | 1.50 | |",
    ]


def test_texts_are_counted_over_the_rounds_of_a_pass():
    row = ROWS["train_rte"]
    row = dataclasses.replace(
        row, work=dataclasses.replace(row.work, num_examples=12, parts=2), variants={"": {}}
    )
    # Three passes of two rounds each: 3, 4 and 20 seconds.
    ours = _answers([1.0, 2.0, 1.0, 3.0, 10.0, 10.0])
    [line] = table.lines_of(row, {"": ours}, _answers([4.0] * 6))
    assert line.endswith("| examples/s | 3.00 | 1.50 | 2.00 | 2.00 |")


def test_the_page_on_speed_has_the_header():
    text = (REPO / "docs/measured/speed.md").read_text()
    assert set(table.HEADER) <= set(text.splitlines())
