"""Prints throughput and latency of `prompt-tuning serve`, beside PEFT and transformers and with many prompts.

`python -m prompt_tuning.launch.benchmarks.serving` needs the extras `serve` and `hf`, and no data. The servers of
a table run at once and are asked in turn, so that what else the machine does meets all; who comes first in one round
comes last in the next. `--long=N` puts a load of N mixed requests on one server instead (`long_load.py`).
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence

from prompt_tuning.launch.benchmarks.serving import load, long_load, subject
from prompt_tuning.launch.benchmarks.serving.load import Round
from prompt_tuning.launch.benchmarks.serving.processes import Server, free_port
from prompt_tuning.launch.benchmarks.serving.subject import Ask, Subject
from prompt_tuning.launch.benchmarks.speed import table

_MODULE = "prompt_tuning.launch.benchmarks.serving"
_VERSIONS = ("jax", "flax", "starlette", "uvicorn", "peft", "transformers", "torch")
# Prompts that both sides have.
_SHARED = 8
_HEADER = (
    "| server | clients | requests/s | p50, ms | p95, ms | p99, ms | first token p50, ms | p95, ms | CPU ms/request |",
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
)


@dataclasses.dataclass
class Side:
    """One of the servers of a table.

    Attributes:
      title: What it is called there.
      server: The server.
      asks: What it is asked.
      streams: Whether its answers come token by token.
      rounds: What was measured, and the CPU seconds that it took, by the number of clients.
    """

    title: str
    server: Server
    asks: Sequence[Ask]
    streams: bool = True
    rounds: dict[int, list[tuple[Round, float]]] = dataclasses.field(default_factory=dict)

    def measure(self, clients: int) -> None:
        """Asks everything once."""
        before = self.server.cpu_seconds()
        found = load.drive(self.server.url, self.asks, clients, streams=self.streams)
        took = self.server.cpu_seconds() - before
        self.rounds.setdefault(clients, []).append((found, took))

    def throughput(self, clients: int) -> float:
        """Returns requests a second."""
        rounds = self.rounds[clients]
        return len(rounds) * len(self.asks) / sum(one.seconds for one, _ in rounds)

    def line(self, clients: int) -> str:
        """Returns a line of the table."""
        rounds = self.rounds[clients]
        answers = [answer for one, _ in rounds for answer in one.answers]
        whole = load.milliseconds([answer.seconds for answer in answers], 0.5, 0.95, 0.99)
        firsts = [answer.first for answer in answers if answer.first is not None]
        first = load.milliseconds(firsts, 0.5, 0.95) if firsts else []
        cpu = 1000 * sum(seconds for _, seconds in rounds) / len(answers)
        figures = [f"{x:,.0f}" for x in (*whole, *first)] + [""] * (2 - len(first))
        cells = [
            self.title,
            str(clients),
            f"{self.throughput(clients):.2f}",
            *figures,
            f"{cpu:,.0f}",
        ]
        return f"| {' | '.join(cells)} |"


def ours(served: Subject, names: Sequence[str] = ()) -> Server:
    """Returns this package's server with some prompts, all by default."""
    port = free_port()
    sizes = served.sizes(len(names or served.names))
    flags = [*served.flags, *sizes, served.prompts(names), f"--port={port}"]
    return Server(["-m", "prompt_tuning", "serve", *flags], port)


def peer(served: Subject) -> Server:
    """Returns the other side's server."""
    port = free_port()
    return Server(["-m", f"{_MODULE}.peer", str(served.folder), str(port)], port)


def compare(sides: Sequence[Side], clients: Sequence[int], rounds: int) -> None:
    """Asks all sides in turn, and prints a line for each number of clients as soon as it is known."""
    print(*_HEADER, sep="\n", flush=True)
    for side in sides:
        # What is made at the first request is made now.
        load.drive(side.server.url, side.asks[:32], 8, streams=side.streams)
    for number in clients:
        for index in range(rounds):
            for side in sides if index % 2 else sides[::-1]:
                side.measure(number)
        print(*(side.line(number) for side in sides), sep="\n", flush=True)


def beside_peft(size: str, clients: Sequence[int], requests: int, rounds: int) -> None:
    """Prints ours beside PEFT's."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        served = subject.make(folder, size, _SHARED, _SHARED)
        asks = subject.questions(requests, served.names)
        us = Side(f"ours, {size}", stack.enter_context(ours(served)), asks)
        them = Side(f"PEFT, {size}", stack.enter_context(peer(served)), asks, streams=False)
        compare([us, them], clients, rounds)
        for number in clients:
            at_once, alone = (us.throughput(n) for n in (number, clients[0]))
            print(
                f"{number} clients: {at_once / them.throughput(number):.2f} of PEFT's throughput,"
                f" {at_once / alone:.2f} of that of {clients[0]}"
            )
        print(f"{_same(us, them, clients)} answers of ours are PEFT's")


def _same(us: Side, them: Side, clients: Sequence[int]) -> str:
    """How many answers are the same, with those of several rounds."""
    pairs = [
        (a.text.strip(), b.text.strip())
        for number in clients
        for (ours_, _), (theirs, _) in zip(us.rounds[number], them.rounds[number], strict=True)
        for a, b in zip(ours_.answers, theirs.answers, strict=True)
    ]
    return f"{sum(a == b for a, b in pairs)} of {len(pairs)}"


def many_prompts(
    size: str, clients: Sequence[int], requests: int, rounds: int, number: int
) -> None:
    """Prints ours with many resident prompts beside ours with one."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        served = subject.make(folder, size, number, 0)
        first = served.names[:1]
        servers = {1: ours(served, first), number: ours(served)}
        for server in servers.values():
            stack.enter_context(server)
        asks: Mapping[int, Sequence[Ask]] = {
            1: subject.questions(requests, first),
            number: subject.questions(requests, served.names),
        }
        titles = {1: f"one prompt, {size}", number: f"{number:,} prompts, {size}"}
        sides = [Side(titles[n], servers[n], asks[n]) for n in servers]
        compare(sides, clients, rounds)
        one, many = sides
        for n in clients:
            print(
                f"{n} clients: {many.throughput(n) / one.throughput(n):.3f} of the throughput of one prompt"
            )


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables, or puts on the long load."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--sizes", default="mini,small", help=f"of {', '.join(subject.SIZES)}")
    add("--clients", default="1,8,64", help="numbers of clients, the least first")
    add("--requests", type=int, default=64, help="in a round")
    add("--rounds", type=int, default=2, help="of each side and number of clients")
    add("--prompts", type=int, default=1000, help="resident prompts to hold against one; 0: not")
    add("--long", type=int, metavar="N", help="put on a load of N mixed requests instead")
    add("--seed", type=int, default=0, help="of the long load")
    flags = parser.parse_args(argv)
    sizes, clients = flags.sizes.split(","), [int(n) for n in flags.clients.split(",")]
    if unknown := set(sizes) - set(subject.SIZES):
        parser.error(f"--sizes: got {sorted(unknown)}, expected some of {list(subject.SIZES)}")
    if flags.long:
        sys.exit(long_load.run(flags.long, sizes[0], clients[-1], flags.seed))
    if importlib.util.find_spec("peft") is None:
        parser.error("PEFT is not installed. Fix: pip install -c constraints.txt -e '.[serve,hf]'")
    versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
    print(table.heading(versions, f"python -m {_MODULE} {' '.join(argv or sys.argv[1:])}"))
    for size in sizes:
        beside_peft(size, clients, flags.requests, flags.rounds)
        if flags.prompts:
            many_prompts(size, clients, flags.requests, flags.rounds, flags.prompts)


if __name__ == "__main__":
    main()
