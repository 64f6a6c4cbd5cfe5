import io
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from prompt_tuning.checkpoints import digest
from tests.checkpoints.run_states import PROMPT, names
from tests.checkpoints.t5x_writer import write_t5x_checkpoint
from tests.checkpoints.tiny_params import make_unscanned
from tests.helpers import REPO

_TWO_PROCESSES = """
import json, sys
import jax
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{sys.argv[2]}", 2, int(sys.argv[1]))
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from prompt_tuning import tree
from prompt_tuning.checkpoints import digest, load, shared_reads
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.prompt_files import write
from prompt_tuning.partitioning import PjitPartitioner
from tests.checkpoints.run_states import PROMPT, to_abstract
directory, base = sys.argv[3], sys.argv[4]
partitioner = PjitPartitioner(num_partitions=2)
assert partitioner.mesh.size == 4 and jax.process_count() == 2
source = open_source(base)
shapes = {p: jax.ShapeDtypeStruct(s, d) for p, (s, d) in source.shapes().items()}
spread = NamedSharding(partitioner.mesh, P(("data", "model")))
alike = [p for p, s in shapes.items() if "/attention/" in p or s.shape[0] % 4]
shardings = {p: partitioner.replicated if p in alike else spread for p in shapes}
read, num_read = source.read, {}
def counting_read(path, index=None):
    part = read(path, index)
    num_read[path] = num_read.get(path, 0) + part.size
    return part
source.read = counting_read
shared_reads.MIN_BYTES = 0
params = load.load_params(source, shapes, shardings)
# Each process reads half, be it all that it holds or its share of what both hold.
for path, shape in shapes.items():
    assert num_read[path] == shape.size // 2, path
    assert params[path].sharding == shardings[path], path
assert 0 < len(alike) < len(shapes)
prompt = jax.device_put(np.full((4, 8), 2.0, np.float32), partitioner.replicated)
state = {"step": jax.device_put(np.int32(1), partitioner.replicated),
         "trainable": tree.unflatten({**params, PROMPT: prompt})}
checkpointer = Checkpointer(directory, keep=1)
assert checkpointer.latest_step() is None
for step in (1, 2, 3):
    checkpointer.save(step, state, {"step": step})
    write.save_prompts(directory, step, {PROMPT: prompt, "w": params["token_embedder/embedding"]}, {})
    checkpointer.ledger.record(step, "f1", -step)
checkpointer.close()
again = Checkpointer(directory, keep=1)
restored, metadata = again.restore(again.latest_step(), to_abstract(state))
same = digest.params_digest(tree.flatten(restored["trainable"]))
batch = partitioner.shard_batch({"x": np.arange(8, dtype=np.int32)})
total = int(jax.jit(lambda x: x.sum(), out_shardings=partitioner.replicated)(batch["x"]))
rows = sorted({int(v) for s in batch["x"].addressable_shards for v in np.asarray(s.data)})
print("RESULT", json.dumps([same, metadata, again.latest_step(), total, rows]))
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
    params = make_unscanned()
    base = write_t5x_checkpoint(tmp_path / "t5" / "checkpoint_100", params, 100)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    flags = "--xla_force_host_platform_device_count=2"
    env = {**os.environ, "PYTHONPATH": str(REPO), "XLA_FLAGS": flags}
    run = tmp_path / "run"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _TWO_PROCESSES, str(i), str(port), str(run), str(base)],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=240) for process in processes]
    results = []
    for process, (out, err) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, err[-3000:]
        results.append(json.loads(out.split("RESULT ")[1]))
    prompt = np.full((4, 8), 2.0, np.float32)
    expected = digest.params_digest({**params, PROMPT: prompt})
    # Each has its half of the batch.
    halves = [result.pop() for result in results]
    assert halves == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert results == [[expected, {"step": 3}, 3, 28]] * 2
    assert names(run) == ["best.json", "checkpoint_1", "checkpoint_3", "numpy_checkpoints"]
    stored = run / "numpy_checkpoints" / "checkpoint_2" / "w"
    stored = np.load(io.BytesIO(stored.read_bytes()))
    np.testing.assert_array_equal(stored, params["token_embedder/embedding"])
