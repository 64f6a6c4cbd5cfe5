"""Comparing with reference numbers of tuned parts: which folder holds them, and what becomes of its cases."""

import json

import pytest

from tests.golden import check
from tests.helpers import GOLDEN
from tests.parity import peft_family, subjects
from tests.parity.rows import Row

# Subject -> rows that it has at least on the small copies.
ROWS = {"lora": 9, "tasks": 19}


def test_a_folder_is_known_by_its_folders_and_cases_without_rows_are_named(
    tmp_path, monkeypatch, capsys
):
    for name in ("C_methods", "A_peft/one"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("C_methods/a.npz", "C_methods/ab.npz", "C_methods/b.npz", "A_peft/one/golden.npz"):
        (tmp_path / name).touch()

    def one_subject(module, *_):
        if module == f"family_{peft_family.SUBJECTS[0]}":
            yield Row("family/C_methods/ab/logits", 0, 0)
            yield from subjects.guarded("family/A_peft/one", iter(lambda: {}["lost"], None))

    monkeypatch.setattr(subjects, "comparisons", one_subject)
    assert check.main([str(tmp_path), "--format=json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["ok"]) for row in report["rows"]] == [
        ("family/C_methods/ab/logits", True),
        ("family/A_peft/one/completed", False),
    ]
    assert [item["name"] for item in report["not_checked"]] == ["C_methods/a", "C_methods/b"]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("subject", peft_family.SUBJECTS)
def test_the_small_copies_hold(subject):
    items = list(subjects.comparisons(f"family_{subject}", GOLDEN / "peft", None))
    rows = [item for item in items if isinstance(item, Row)]
    assert [row for row in rows if not row.ok] == []
    assert len(rows) >= ROWS.get(subject, 0)
