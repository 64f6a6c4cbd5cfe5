"""Comparing with reference numbers of T0 and T-Few: which folder is one, and what a subject that breaks becomes."""

import json

from tests.golden import check
from tests.parity import subjects, t0
from tests.parity.rows import Row


def test_a_folder_of_t0_is_known_by_its_files(tmp_path, monkeypatch, capsys):
    (tmp_path / "mixtures.json").write_text("{}")
    monkeypatch.setattr(subjects, "comparisons", lambda *_: iter([Row("t0/a", 0, 0, "count")]))
    assert check.main([str(tmp_path), "--format=json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in report["rows"]] == ["t0/a"] * len(t0.SUBJECTS)


def test_a_subject_that_breaks_down_does_not_hold(tmp_path, monkeypatch):
    def broken(subject, *_):
        yield Row("t0/b", 0, 0, "count")
        if subject == f"t0_{t0.SUBJECTS[0]}":
            raise KeyError("lost")

    monkeypatch.setattr(subjects, "comparisons", broken)
    report = t0.compare(tmp_path, None)
    assert [row.name for row in report.rows if not row.ok] == [f"t0/{t0.SUBJECTS[0]}/completed"]
    assert len(report.rows) == len(t0.SUBJECTS) + 1
