"""Descriptions tell apart what differs, however quick the edit was, and nothing else."""

import dataclasses
import functools
import json

import numpy as np
import pytest
from etils import epath

from prompt_tuning.data import content

LIMIT = 3


def above(value, limit=None):
    return value > (limit or LIMIT)


def _closure(words):
    return lambda text: text in words


@dataclasses.dataclass(frozen=True)
class Settings:
    words: tuple[str, ...] = ("a",)


class Plain:
    def __init__(self, size):
        self.size = size


def test_equal_things_are_described_alike_and_others_are_not():
    pairs = [
        (lambda: _closure({"b", "a"}), lambda: _closure({"a", "c"})),
        (lambda: functools.partial(above, limit=2), lambda: functools.partial(above, limit=4)),
        (lambda: Settings(), lambda: Settings(("b",))),
        (lambda: Plain(1), lambda: Plain(2)),
        (lambda: {"x": np.arange(3)}, lambda: {"x": np.arange(4)}),
        (lambda: Settings(("a" * 1000,)), lambda: Settings(("a" * 1001,))),
        (lambda: str.lower, lambda: str.upper),
    ]
    for make, make_other in pairs:
        described = content.describe(make())
        assert described == content.describe(make()) == json.loads(json.dumps(described))
        assert described != content.describe(make_other())


def test_a_function_of_the_users_is_known_by_the_values_that_it_names(monkeypatch):
    before = content.describe(above)
    monkeypatch.setitem(above.__globals__, "LIMIT", 5)
    assert content.describe(above) != before


def test_a_difference_is_named_by_its_place():
    long = {"text": "x" * 700, "kept": 1}
    recorded = {"a": 1, "b": {"long": long, "short": [1, 2]}}
    present = {"a": 1, "b": {"long": {**long, "kept": 2}, "short": [1, 2]}}
    assert content.difference(recorded, present) == ("b, long, kept", 1, 2)
    assert content.difference(recorded, recorded) is None
    assert content.difference({"a": [1]}, {"a": [1, 2]}) == ("a", [1], [1, 2])


@pytest.mark.parametrize("position", [0, 70_000, 199_999])
def test_every_byte_counts_up_to_the_limit_and_the_ends_beyond(tmp_path, position):
    file = epath.Path(tmp_path / "file")
    data = bytearray(np.random.default_rng(0).integers(0, 256, 200_000, np.uint8).tobytes())
    file.write_bytes(bytes(data))
    whole, sampled = content.of_files([file]), content.of_files([file], 2 * 2**16)
    assert whole != sampled
    data[position] ^= 1
    file.write_bytes(bytes(data))
    assert content.of_files([file]) != whole
    # Two blocks of 64 KiB are read, the first and the last.
    is_seen = position != 70_000
    assert (content.of_files([file], 2 * 2**16) != sampled) is is_seen


def test_folders_are_known_by_what_is_in_them(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "x").write_text("1")
    assert content.of_folder(tmp_path / "a") == content.of_folder(tmp_path / "b") is not None
    (tmp_path / "b" / "inner" / "x").rename(tmp_path / "b" / "y")
    assert content.of_folder(tmp_path / "a") != content.of_folder(tmp_path / "b")
    assert content.of_folder(tmp_path / "nothing") is None
    assert content.of_files([tmp_path / "a"]) is None


def test_a_folders_digest_sees_every_byte_and_name(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a").write_bytes(b"12")
    (tmp_path / "weights" / "b").write_bytes(b"3")
    seen = [content.of_folder(tmp_path)]
    (tmp_path / "weights" / "a").write_bytes(b"1")
    (tmp_path / "weights" / "b").write_bytes(b"23")
    seen.append(content.of_folder(tmp_path))
    (tmp_path / "weights" / "b").rename(tmp_path / "weights" / "c")
    seen.append(content.of_folder(tmp_path))
    assert len(set(seen)) == 3


def test_what_an_earlier_version_did_not_have_is_no_difference():
    recorded = {"loss": {"kind": "A", "z": 1.0}, "schedule": [1, 2]}
    present = {"loss": {"kind": "A", "z": 1.0, "new": None}, "schedule": [1, 2, None], "more": None}
    assert content.difference(recorded, present) is None
    assert content.difference(recorded, {**present, "more": 1}) == ("more", None, 1)
