"""Comparing with reference numbers of T5Gemma and MADLAD-400."""

import pytest

from tests.golden import check
from tests.helpers import SHARED, requires_shared
from tests.parity import t5gemma
from tests.parity.rows import Row

DIRECTORY = (SHARED or check.REPO) / "golden" / "t5gemma"


def test_a_folder_is_known_by_its_parts(tmp_path):
    (tmp_path / check.GEMMA_CASES[0]).mkdir()
    assert check._kinds_of(tmp_path) == ["t5gemma"]
    assert t5gemma.compare(tmp_path, None).rows == []


@pytest.mark.slow
@requires_shared
@pytest.mark.loose_numerics(reason="reference arrays are compared as NumPy has them")
def test_every_reference_number_is_matched():
    report = t5gemma.compare(DIRECTORY, None)
    assert len(report.rows) > 60 and all(isinstance(row, Row) for row in report.rows)
    wrong = [f"{row.name}: {row.measured:.2g}" for row in report.rows if not row.ok]
    assert wrong == []
