"""T-Few beside the numbers of its own code."""

import json

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
def test_t_fews_own_numbers_hold(tmp_path):
    """Of the model with the fewest pieces, which is compared in a fraction of the time."""
    assert SHARED is not None
    folder = SHARED / "golden" / "t0"
    models = json.loads((folder / t0_tfew.FILE).read_text())
    name = min(models, key=lambda name: models[name]["shape"]["vocab_size"])
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / t0_tfew.FILE).unlink()
    (tmp_path / t0_tfew.FILE).write_text(json.dumps({name: models[name]}))
    rows = [*t0_tfew.comparisons(tmp_path, None)]
    assert len(rows) > 80 and all(isinstance(row, Row) for row in rows)
    wrong = [row for row in rows if isinstance(row, Row) and not row.ok]
    assert not wrong, "\n".join(map(str, wrong))
    assert np.isfinite([row.measured for row in rows if isinstance(row, Row)]).all()
