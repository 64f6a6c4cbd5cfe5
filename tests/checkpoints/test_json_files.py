import pytest
from etils import epath

from prompt_tuning.checkpoints import json_files
from prompt_tuning.errors import CheckpointError


def test_a_name_with_two_values_is_told(tmp_path):
    file = epath.Path(tmp_path / "best.json")
    file.write_text('{"accuracy": {"step": 4, "step": 5}}')
    with pytest.raises(CheckpointError, match="best.json: got .*a name that has two values"):
        json_files.read(file, expected="the best steps", fix="remove it")
    file.write_bytes(json_files.encode({"accuracy": {"step": 4}}))
    assert json_files.read(file, expected="", fix="") == {"accuracy": {"step": 4}}
