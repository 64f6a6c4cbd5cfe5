"""The table that several writers append to, and the claims by which they agree who does what."""

import json
import multiprocessing
import os
import subprocess
import sys
import time

from prompt_tuning.commands.sweep import claims
from prompt_tuning.commands.sweep.claims import Claims, Owner
from prompt_tuning.commands.sweep.results import Table, latest

WRITERS, ROWS = 4, 50


def _row(key, status="done", **more):
    return {"sweep": "tiny", "key": key, "status": status, **more}


def _append_many(directory, writer):
    for number in range(ROWS):
        # Longer than a buffer of any layer in between.
        Table(directory).append(_row(f"{writer}-{number}", text="x" * 20_000))


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
    table.append(_row("a"))
    with table.path.open("a") as file:
        file.write('{"sweep": "tiny", "ke')
    assert [row["key"] for row in table.read()] == ["a"]
    table.append(_row("b", score=float("nan"), curve=[[1, float("inf")]]))
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


def _take(mine, key):
    with mine._table.locked():
        return mine.take_locked(key)


def _claim(table, key, owner, age=0.0):
    path = table.directory / claims.FOLDER / f"{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(owner.__dict__))
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_a_cell_is_in_one_pair_of_hands(tmp_path):
    table = Table(tmp_path)
    first, second = Claims(table), Claims(table)
    assert _take(first, "a") and not _take(second, "a") and _take(second, "b")
    assert first.owner("a") == claims.this_process()
    second.release("a")
    assert first.owner("a") is not None, "somebody else's claim was released"
    first.release("a")
    assert _take(second, "a")
    second.release_all()
    assert second.owner("a") is None and second.owner("b") is None


def test_a_claim_outlives_neither_its_process_nor_its_silence(tmp_path):
    table = Table(tmp_path)
    mine = Claims(table)
    here = claims.this_process()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    _claim(table, "ended", Owner(here.host, ended.pid, here.born))
    # The number was given to another process meanwhile.
    _claim(table, "reused", Owner(here.host, here.pid, f"{here.born}0"))
    _claim(table, "elsewhere", Owner("another-host", 1, None))
    silent = _claim(table, "silent", Owner("another-host", 1, None), claims.SILENT_SECONDS + 60)
    _claim(table, "mine", here, claims.SILENT_SECONDS + 60)
    (silent.parent / "empty.json").write_text("")
    taken = {k: _take(mine, k) for k in ("ended", "reused", "elsewhere", "silent", "mine", "empty")}
    assert taken == {
        "ended": True,
        "reused": True,
        "elsewhere": False,
        "silent": True,
        "mine": False,
        "empty": True,
    }
    assert set(mine.left_by(here.pid)) == {"ended", "reused", "silent", "mine", "empty"}
    mine.release_all()


def test_an_owner_says_that_it_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.02)
    table = Table(tmp_path)
    mine = Claims(table)
    assert _take(mine, "a")
    path = tmp_path / claims.FOLDER / "a.json"
    os.utime(path, (0, 0))
    deadline = time.time() + 10
    while path.stat().st_mtime == 0 and time.time() < deadline:
        time.sleep(0.01)
    assert path.stat().st_mtime > 0
    mine.release("a")
    assert not path.exists()
