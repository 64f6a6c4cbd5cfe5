"""Cheaper prompts beside the numbers of their authors' code."""

from typing import Any

import numpy as np
import pytest

from tests.helpers import SHARED, requires_shared
from tests.parity import family_cheap
from tests.parity.rows import NotChecked, Row


def test_without_its_model_a_case_is_not_checked(tmp_path):
    (tmp_path / "C_methods").mkdir()
    arrays: dict[str, Any] = {"param/lora_embedding_A": np.ones((2, 1))}
    np.savez(tmp_path / "C_methods" / "a.npz", **arrays)
    (item,) = family_cheap.comparisons(tmp_path, None)
    assert isinstance(item, NotChecked) and item.name == "C_methods/a"


@pytest.mark.slow
@requires_shared
def test_the_authors_numbers_hold(tmp_path):
    assert SHARED is not None
    golden = SHARED / "golden" / "peft"
    # The other cases differ in the formula of the prompt alone, which tests/models/methods/test_residual.py has.
    files = ("dept.npz", "residual_mlp1_separate.npz", "report.json")
    (tmp_path / "C_methods").mkdir()
    for file in files:
        (tmp_path / "C_methods" / file).symlink_to(golden / "C_methods" / file)
    for folder in ("A_peft", "B_authors"):
        (tmp_path / folder).symlink_to(golden / folder)
    rows = [*family_cheap.comparisons(tmp_path, None)]
    assert len(rows) == 16 and all(isinstance(row, Row) for row in rows)
    wrong = [row for row in rows if isinstance(row, Row) and not row.ok]
    assert not wrong, "\n".join(map(str, wrong))
