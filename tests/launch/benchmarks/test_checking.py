import json

from prompt_tuning.launch.benchmarks import checking


def test_both_kinds_of_loads_are_measured(capsys):
    checking.main(["--arrays=1", "--rounds=1"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["dtype"] for line in lines] == ["float32", "bfloat16"]
    assert all(line["checked processor seconds"] > 0 for line in lines)
