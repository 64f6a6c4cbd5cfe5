"""Cheaper prompts beside the numbers of their authors' code."""

import numpy as np
import pytest

from tests.helpers import SHARED, requires_shared
from tests.parity import family_cheap
from tests.parity.rows import NotChecked, Row


def test_without_its_model_a_case_is_not_checked(tmp_path):
    (tmp_path / "C_methods").mkdir()
    np.savez(tmp_path / "C_methods" / "a.npz", **{"param/lora_embedding_A": np.ones((2, 1))})
    (item,) = family_cheap.comparisons(tmp_path, None)
    assert isinstance(item, NotChecked) and item.name == "C_methods/a"


@pytest.mark.slow
@requires_shared
def test_the_authors_numbers_hold():
    assert SHARED is not None
    rows = [*family_cheap.comparisons(SHARED / "golden" / "peft", None)]
    assert len(rows) == 31 and all(isinstance(row, Row) for row in rows)
    wrong = [row for row in rows if isinstance(row, Row) and not row.ok]
    assert not wrong, "\n".join(map(str, wrong))
