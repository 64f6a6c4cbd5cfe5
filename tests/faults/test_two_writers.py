"""Two whole runs in one folder: the second is refused, and the first comes to what it comes to alone."""

import concurrent.futures
import time

from prompt_tuning import cli

_PROMPT = "numpy_checkpoints/checkpoint_4/encoder.prompt.prompt.prompt"


def test_a_second_run_is_refused_and_the_first_unharmed(server, world, monkeypatch, capsys):
    argv = world.argv("train", "shared")
    folder = world.folder / "shared" / "run"
    monkeypatch.chdir(world.folder)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(server.run, argv, folder=world.folder)
        while not (folder / ".writer").exists() and not first.done():
            time.sleep(0.01)
        assert cli.main(argv) == 2
        assert not first.done()
        assert first.result().code == 0, first.result().output
    told = capsys.readouterr().err
    assert f"MODEL_DIR {folder} is in the hands of another run: got " in told
    assert " Fix: wait for it, or end it (`kill " in told
    alone = (world.folder / "trained" / _PROMPT).read_bytes()
    assert (folder / _PROMPT).read_bytes() == alone
    assert not (folder / ".writer").exists()
