"""The table that several writers append to, and the claims by which they agree who does what."""

import json
import multiprocessing
import subprocess
import sys

from prompt_tuning.commands.sweep.claims import Claims
from prompt_tuning.commands.sweep.results import Table, latest
from tests.helpers import REPO

WRITERS, ROWS = 4, 50


def _row(key, status="done", **more):
    return {"sweep": "tiny", "key": key, "status": status, **more}


def _append(table, row):
    with table.locked():
        table.append(row)


def _append_many(directory, writer):
    for number in range(ROWS):
        # Longer than a buffer of any layer in between.
        _append(Table(directory), _row(f"{writer}-{number}", text="x" * 20_000))


def test_rows_of_several_processes_are_all_there_and_whole(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(tmp_path, w)) for w in range(WRITERS)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    rows = Table(tmp_path).read()
    expected = {f"{writer}-{number}" for writer in range(WRITERS) for number in range(ROWS)}
    assert len(rows) == WRITERS * ROWS and {row["key"] for row in rows} == expected
    assert {len(row["text"]) for row in rows} == {20_000}


def test_a_torn_line_costs_no_other_row(tmp_path):
    table = Table(tmp_path)
    assert table.read() == []
    _append(table, _row("a"))
    with table.path.open("a") as file:
        file.write('{"sweep": "tiny", "ke')
    assert [row["key"] for row in table.read()] == ["a"]
    _append(table, _row("b", score=float("nan"), curve=[[1, float("inf")]]))
    assert [row["key"] for row in table.read()] == ["a", "b"]
    last = table.path.read_text().splitlines()[-1]
    row = json.loads(last, parse_constant=lambda name: 1 / 0)
    assert row["score"] is None and row["curve"] == [[1, None]]


def test_a_done_row_counts_however_often_a_cell_was_written():
    rows = [_row("a", "failed"), _row("a", score=1), _row("a", score=2), _row("a", "failed")]
    rows += [_row("b", "failed", error="old"), _row("b", "failed", error="new")]
    rows += [{**_row("a", score=3), "sweep": "other"}]
    counted = latest(rows)
    assert counted["tiny", "a"]["score"] == 1
    assert counted["tiny", "b"]["error"] == "new"
    assert counted["other", "a"]["score"] == 3 and len(counted) == 3


def test_a_cell_is_in_one_pair_of_hands(tmp_path):
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("a") and not second.take("a") and second.take("b")
    assert not first.is_free("a") and not first.is_free("b") and first.is_free("c")
    first.release("a")
    assert second.take("a")
    second.release("a")
    assert first.is_free("a") and not first.is_free("b")


HOLDER = """
import sys, time
from prompt_tuning.commands.sweep.claims import Claims
claims = Claims(sys.argv[1])
print(claims.take("a"), flush=True)
time.sleep(600)
"""


def test_a_claim_ends_with_its_process_however_it_ends(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPO)
    mine = Claims(tmp_path)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "True\n"
        assert not mine.take("a") and not mine.is_free("a")
    finally:
        holder.kill()
        holder.communicate()
    assert mine.take("a")
