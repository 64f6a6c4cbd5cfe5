"""What ships of a ladder: the same weights in bfloat16, complete or not at all."""

import json

import jax.numpy as jnp
import pytest
from etils import epath

from prompt_tuning.checkpoints import digest
from prompt_tuning.checkpoints.formats import weights
from prompt_tuning.errors import ConfigError, DataError
from prompt_tuning.launch.studies import ladder, ship_ladder
from tests.checkpoints.tiny_params import make_unscanned

CHECKPOINT = "adapted/checkpoint_4"
ORIGIN = {
    "kind": "run",
    "path": "/ladder/pico",
    "step": 4,
    "frozen_digest": None,
    "trainable_paths": [],
    "metadata": {},
}


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A ladder of one rung with one checkpoint more than ships, and the digest of the one that does."""
    monkeypatch.setattr(ship_ladder, "SHIPPED", {"pico": (CHECKPOINT,)})
    folder = tmp_path / "ladder"
    (folder / "pico").mkdir(parents=True)
    for name in ("text.json", "vocabulary.model", "pico/rung.json"):
        (folder / name).write_text(json.dumps({"of": name}))
    for checkpoint in (CHECKPOINT, "adapted/checkpoint_2"):
        params = make_unscanned()
        writer = weights.WeightsWriter(folder / "pico" / checkpoint)
        for path, array in params.items():
            writer.write(path, array)
        writer.finish(source=ORIGIN, digest=digest.params_digest(params))
    return epath.Path(folder), digest.params_digest(params)


def test_what_ships_is_the_ladder_in_bfloat16(built, tmp_path, capsys):
    source, expected = built
    target = tmp_path / "package" / "ladder"
    # Twice: the second takes the place of the first.
    for _ in range(2):
        ship_ladder.main([str(source), f"--target={target}"])
        assert f" bytes in {target}" in capsys.readouterr().out
        files = [path for path in target.rglob("*") if path.is_file()]
        (target / "old").write_text("old")
    assert not (target.parent / ".ladder_").exists() and len(list(target.parent.iterdir())) == 1
    assert "old" not in {path.name for path in files}
    assert {path.parent for path in files if path.name == "weights.json"} == {
        target / "pico" / CHECKPOINT
    }
    for name in ("text.json", "vocabulary.model", "pico/rung.json"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
    shipped = weights.WeightsSource(target / "pico" / CHECKPOINT)
    assert {dtype for _, dtype in shipped.shapes().values()} == {jnp.dtype(jnp.bfloat16)}
    assert shipped.digest == expected
    assert digest.params_digest({p: shipped.read(p) for p in shipped.shapes()}) == expected
    assert shipped.step == 4


def test_nothing_but_a_ladder_is_replaced(built, tmp_path):
    target = tmp_path / "papers"
    target.mkdir()
    (target / "paper.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"is not a ladder.*papers.*another --target"):
        ship_ladder.ship(built[0], target)
    assert (target / "paper.txt").read_text() == "mine"


def test_what_shipped_before_stays_until_the_new_is_complete(built, tmp_path, monkeypatch):
    source, _ = built
    target = tmp_path / "package"
    target.mkdir()
    (target / "text.json").write_text("before")
    monkeypatch.setattr(ship_ladder, "MOST_FILE_BYTES", 100)
    with pytest.raises(DataError, match=r"too large to ship.*pico.*at most .*100 a file"):
        ship_ladder.ship(source, target)
    (source / "pico" / "rung.json").unlink()
    with pytest.raises(DataError, match=r"not finished.*no pico/rung.json"):
        ship_ladder.ship(source, target)
    assert [path.read_text() for path in target.iterdir()] == ["before"]


def test_rungs_and_steps_that_ship_are_those_that_the_ladder_makes():
    assert list(ship_ladder.SHIPPED) == list(ladder.RUNGS)
    for name, checkpoints in ship_ladder.SHIPPED.items():
        rung = ladder.RUNGS[name]
        stop = rung.adapt_steps // rung.adapt_stops
        made = {f"pretrained/checkpoint_{rung.pretrain_steps}"}
        made |= {f"adapted/checkpoint_{n * stop}" for n in range(1, rung.adapt_stops + 1)}
        assert set(checkpoints) <= made
        assert {*checkpoints} >= {
            f"pretrained/checkpoint_{rung.pretrain_steps}",
            f"adapted/checkpoint_{rung.adapt_steps}",
        }
