"""A long load of mixed requests on one server: no answer may be lost or another's, and memory stays as it is.

What each answer should be is computed before, by `prompt-tuning infer` from the same texts. Prompts are loaded and
unloaded meanwhile, more than are resident; at the end SIGTERM comes while answers are on their way.
"""

import asyncio
import itertools
import json
import pathlib
import tempfile
import time
from collections import Counter
from collections.abc import Sequence

import httpx2

from prompt_tuning import cli
from prompt_tuning.launch.benchmarks.measuring import MIB
from prompt_tuning.launch.benchmarks.serving import load, subject
from prompt_tuning.launch.benchmarks.serving.mixed import LABELS, Known, Mixed
from prompt_tuning.launch.benchmarks.serving.processes import Server, free_port
from prompt_tuning.launch.benchmarks.serving.subject import Ask, Subject

_PROMPTS, _RESIDENT = 12, 6
_QUESTIONS = 2000
_SAMPLES = 40
# Of what is resident after a quarter of the load, what may come on top until its end: arenas of the allocator.
_GROWTH = 0.1


def run(number: int, size: str, clients: int, seed: int) -> int:
    """Puts on the load, prints what came of it, and returns 0 if all was as it should be.

    Args:
      number: Requests.
      size: Of the model.
      clients: How many send at once.
      seed: Of all that is drawn.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        served = subject.make(folder, size, _PROMPTS, 0)
        asks = subject.questions(min(_QUESTIONS, max(64, number // 4)), served.names, seed)
        known = answers(served, [Ask(a.model, a.prompt, subject.OUTPUTS) for a in asks])
        print(f"{len(known)} questions with an answer that no other one has", flush=True)
        with _start(served) as server:
            mixed = Mixed(server.url, known, seed)
            memory = asyncio.run(_put_on(mixed, server, number, clients))
            left = asyncio.run(_terminate(mixed, server, known[: 2 * clients]))
            code = server.code()
            said = [line for line in server.log().splitlines() if "Traceback" in line]
    print(*mixed.troubles, sep="\n")
    print(json.dumps(mixed.counts, indent=1))
    print("resident MiB:", ", ".join(f"{n:,}: {b / MIB:,.0f}" for n, b in memory))
    print(
        f"SIGTERM with {left} answers on their way: exit code {code}; {len(said)} tracebacks in the log"
    )
    settled, last = memory[len(memory) // 4][1], memory[-1][1]
    is_flat = last <= settled * (1 + _GROWTH)
    wrong = sum(mixed.counts[what] for what in ("wrong", "lost", "crossed"))
    print(f"wrong, lost or crossed: {wrong}; memory is {'flat' if is_flat else 'not flat'}")
    return int(bool(wrong or code or said or not is_flat))


def answers(served: Subject, asks: Sequence[Ask]) -> list[Known]:
    """Returns the questions whose answer is that of no other one, with what `prompt-tuning infer` has for them."""
    questions = [{"inputs": ask.prompt, "task": ask.model} for ask in asks]
    texts = [row["prediction"] for row in _infer(served, "predict", questions)]
    times = Counter(texts)
    own = [i for i, text in enumerate(texts) if times[text] == 1]
    rows = [{**questions[i], "targets": label} for i in own for label in LABELS]
    scores = iter([row["score"] for row in _infer(served, "score", rows)])
    return [Known(asks[i], texts[i], tuple(itertools.islice(scores, len(LABELS)))) for i in own]


def _infer(served: Subject, mode: str, rows: Sequence[object]) -> list[dict]:
    """What `prompt-tuning infer` writes for each row."""
    file, out = served.folder / f"{mode}.jsonl", served.folder / mode
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model, *others = served.flags
    lengths = {"inputs": subject.INPUTS, "targets": subject.OUTPUTS}
    command = ["infer", model, "--gin_file=prompt_tuning/configs/runs/prompt_infer.gin", *others]
    command += [f"--gin.INFER_INPUT_FILE={str(file)!r}", f"--gin.INFER_OUTPUT_DIR={str(out)!r}"]
    command += [f"--gin.TASK_FEATURE_LENGTHS={lengths!r}", f"--gin.infer.infer.mode={mode!r}"]
    if code := cli.main([*command, served.prompts()]):
        raise SystemExit(code)
    lines = (out / f"{mode}-{mode}.jsonl-00000-of-00001").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _start(served: Subject) -> Server:
    """The server, which finds the prompts in its folder, more than it holds on the device."""
    port = free_port()
    flags = [*served.sizes(_RESIDENT), f"--prompts_dir={served.folder / subject.PROMPTS}"]
    flags.append(f"--port={port}")
    return Server(["-m", "prompt_tuning", "serve", *served.flags, *flags], port)


async def _put_on(mixed: Mixed, server: Server, number: int, clients: int) -> list[tuple[int, int]]:
    """Sends everything; returns what was resident after how many requests."""
    memory, began = [(0, server.resident_bytes())], time.perf_counter()

    def seen(done: int) -> None:
        if done % max(1, number // _SAMPLES) == 0:
            memory.append((done, server.resident_bytes()))
            rate = done / (time.perf_counter() - began)
            print(f"{done:,} requests, {rate:.1f}/s, {memory[-1][1] / MIB:,.0f} MiB", flush=True)

    await mixed.send(number, clients, seen)
    return memory


async def _terminate(mixed: Mixed, server: Server, known: Sequence[Known]) -> int:
    """Sends SIGTERM while answers are on their way; returns how many were, which must come whole and right."""
    under_way = 0

    async def ask(one: Known) -> None:
        nonlocal under_way
        body = {"model": one.ask.model, "prompt": one.ask.prompt, "stream": True}
        try:
            async with httpx2.AsyncClient(base_url=server.url, timeout=300) as http:
                async with http.stream("POST", load.PATH, json=body) as response:
                    if response.status_code == 200:
                        under_way += 1
                        if under_way == len(known) // 2:
                            server.terminate()
                        mixed.check(one, "".join([text async for text in load.texts(response)]))
        except httpx2.ConnectError:
            mixed.counts["refused a connection after SIGTERM"] += 1
        except Exception as error:
            mixed.counts["lost"] += 1
            mixed.troubles.append(f"after SIGTERM: {error!r}")

    await asyncio.gather(*map(ask, known))
    return under_way
