"""T0's tasks, mixtures, caches and rank scores against the original code's."""

import json
import shutil

from tests.golden import check
from tests.helpers import SHARED, requires_shared
from tests.parity import t0_tasks
from tests.parity.rows import Row


@requires_shared
def test_the_reference_numbers_hold():
    assert SHARED is not None
    folder = SHARED / "golden" / "t0"
    rows = list(t0_tasks.comparisons(folder, SHARED / check.VOCABULARY))
    assert [row for row in rows if not (isinstance(row, Row) and row.ok)] == [] and len(rows) >= 37


@requires_shared
def test_a_wrong_rate_shows(tmp_path):
    assert SHARED is not None
    folder = SHARED / "golden" / "t0"
    reference = json.loads((folder / "mixtures.json").read_text())
    reference["mixtures"] = {"t0_train": reference["mixtures"]["t0_train"]}
    task = next(iter(reference["mixtures"]["t0_train"]["rates"]))
    reference["mixtures"]["t0_train"]["rates"][task] += 1
    reference["tasks"] = {task: {**reference["tasks"][task], "fixed_answer_choices": ["x"]}}
    (tmp_path / "mixtures.json").write_text(json.dumps(reference))
    shutil.copytree(folder / "templates", tmp_path / "templates")
    wrong = {
        row.name
        for row in t0_tasks.comparisons(tmp_path, None)
        if isinstance(row, Row) and not row.ok
    }
    assert {"mixtures/t0_train/rates", "tasks/fixed_choices"} <= wrong
