"""T-Few beside the numbers of its own code."""

import numpy as np
import pytest

from tests.helpers import SHARED, requires_shared
from tests.parity import t0_tfew
from tests.parity.rows import NotChecked, Row


def test_a_folder_without_these_numbers_is_not_checked(tmp_path):
    (item,) = t0_tfew.comparisons(tmp_path, None)
    assert isinstance(item, NotChecked) and item.name == t0_tfew.FILE


@pytest.mark.slow
@pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")
@requires_shared
def test_t_fews_own_numbers_hold():
    assert SHARED is not None
    rows = [*t0_tfew.comparisons(SHARED / "golden" / "t0", None)]
    assert len(rows) > 100 and all(isinstance(row, Row) for row in rows)
    wrong = [row for row in rows if isinstance(row, Row) and not row.ok]
    assert not wrong, "\n".join(map(str, wrong))
    assert np.isfinite([row.measured for row in rows if isinstance(row, Row)]).all()
