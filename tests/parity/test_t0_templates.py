"""Renders beside those of the original code: all that are there, and that a difference would be seen."""

import json

from tests.helpers import SHARED, requires_shared
from tests.parity import t0_templates
from tests.parity.rows import NotChecked


@requires_shared
def test_every_public_render_is_that_of_the_original_code():
    assert SHARED is not None
    rows = list(t0_templates.comparisons(SHARED / "golden" / "t0", None))
    assert len(rows) > 0
    assert not [row for row in rows if isinstance(row, NotChecked) or not row.ok]


def test_a_render_that_differs_is_counted(tmp_path):
    (tmp_path / "templates" / "anli").mkdir(parents=True)
    (tmp_path / "templates" / "anli" / "templates.yaml").write_text(
        "dataset: anli\ntemplates:\n"
        "  a: !Template {name: so so, jinja: '{{ text }}|||{{ answer_choices[1] }}', answer_choices: 'b|||c'}\n"
    )
    row = {
        "dataset": "anli",
        "subset": None,
        "template_name": "so so",
        "example": "anli#0",
        "seed": 3,
    }
    row |= {"answer_choices": ["b", "c"], "fixed_answer_choices": ["b", "c"], "template_id": "a"}
    row |= {
        "original_task": None,
        "choices_in_prompt": None,
        "metrics": [],
        "parts_untruncated": None,
    }
    row |= {"inputs": "a", "targets": "c", "t0_kept": True, "t0_targets": "c", "row": 0}
    rows = [
        {**row, "t0_task": "anli_so_so_r2"},
        {**row, "t0_task": "anli_so_so", "row": 1},
        {**row, "t0_task": "anli_so_so_r1", "targets": "c ", "row": 2},
    ]
    (tmp_path / "renders.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "render_examples.json").write_text(json.dumps({"anli#0": {"text": "a"}}))
    (found,) = t0_templates.comparisons(tmp_path, None)
    assert not isinstance(found, NotChecked)
    assert (found.name, found.measured) == ("t0/renders/anli", 2)
    assert "row 1: t0_task; row 2: parts" in found.note
    (tmp_path / "renders.jsonl").unlink()
    (missing,) = t0_templates.comparisons(tmp_path, None)
    assert isinstance(missing, NotChecked)
