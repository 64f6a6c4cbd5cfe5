"""Reads the text of a compiled XLA program: computations, instructions, shapes, and how often each computation runs."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_ITEM_BITS = {"pred": 8, "token": 0, "opaque": 0}
_SHAPE = re.compile(r"([a-z][a-z0-9]*)\[([0-9,<=]*)\](\{[^{}]*\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\(([^)]*)\)(.*)$")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array.

    Attributes:
      dtype: XLA's name, for example `bf16`.
      dims: Its dimensions.
      space: Memory space of its layout; 0 is the device's main memory (HBM), others are on the core.
    """

    dtype: str
    dims: tuple[int, ...]
    space: int = 0

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def num_bytes(self) -> float:
        """Bytes without the padding of its tiles."""
        bits = _ITEM_BITS.get(self.dtype)
        if bits is None:
            digits = re.search(r"\d+", self.dtype)
            bits = int(digits.group()) if digits else 8
        return self.size * bits / 8


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
      name: Unique in the program.
      opcode: For example `fusion`.
      shapes: Of its result; of all elements where that is a tuple.
      operands: Names of its operands.
      literal: What stands between its parentheses.
      attributes: Everything behind them.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    literal: str
    attributes: str

    @property
    def size(self) -> int:
        """Elements of its result."""
        return sum(shape.size for shape in self.shapes)

    def called(self, kind: str) -> str | None:
        """Returns the computation that it names as `calls`, `to_apply`, `body` or `condition`."""
        return next((name for k, name in _CALLED.findall(self.attributes) if k == kind), None)

    @property
    def branches(self) -> list[str]:
        """Computations of a `conditional`, of which one runs."""
        found = _BRANCHES.search(self.attributes)
        return re.findall(r"[\w.\-]+", found.group(1)) if found else []

    def attribute(self, name: str) -> str | None:
        """Returns the text of `name={…}` or `name=word`, without the braces."""
        found = re.search(rf"\b{name}=(?:\{{([^{{}}]*)\}}|([^\s,]+))", self.attributes)
        return (found.group(1) or found.group(2) or "") if found else None

    def numbers(self, name: str) -> tuple[int, ...]:
        """Returns the whole numbers of `name={1,2}`."""
        return tuple(int(n) for n in re.findall(r"\d+", self.attribute(name) or ""))


@dataclasses.dataclass
class Computation:
    """Instructions by name, in order; the last one that is marked so is the root."""

    name: str
    instructions: dict[str, Instruction] = dataclasses.field(default_factory=dict)
    root: str = ""

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """Instruction name -> the instructions that read it."""
        found: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                found.setdefault(operand, []).append(instruction)
        return found

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Parameter number -> instruction."""
        return {int(i.literal): i for i in self.instructions.values() if i.opcode == "parameter"}

    def operand_shapes(self, instruction: Instruction) -> list[tuple[Shape, ...]]:
        """Returns the shapes of each operand."""
        return [
            self.instructions[name].shapes if name in self.instructions else ()
            for name in instruction.operands
        ]


@dataclasses.dataclass
class Program:
    """A compiled program.

    Attributes:
      computations: By name.
      entry: Name of the one that runs first.
    """

    computations: dict[str, Computation]
    entry: str

    def trips(self, loop: Instruction, caller: Computation) -> int | None:
        """Returns how often the body of a `while` runs at most, or None where the program does not say.

        Args:
          loop: The `while`.
          caller: The computation that it stands in.

        Returns:
          The compiler's own count, else the count from the constant that the condition compares the counter with. A
          further condition may end the loop earlier.
        """
        known = _KNOWN_TRIPS.search(loop.attributes)
        if known:
            return int(known.group(1))
        condition = self.computations[loop.called("condition") or ""]
        bound = self._bound(condition)
        if bound is None:
            return None
        index, limit = bound
        body = self.computations[loop.called("body") or ""]
        start = self._start(caller, loop, index)
        return max(0, -(-(limit - start) // self._step(body, index)))

    def _bound(self, condition: Computation) -> tuple[int, int] | None:
        """Index of the counter in the loop's tuple, and the constant it stays below."""
        for left, right in self._comparisons(condition):
            if left.opcode == "get-tuple-element" and right.opcode == "constant":
                return int(left.attribute("index") or 0), int(right.literal)
        return None

    def _comparisons(self, condition: Computation) -> Iterator[tuple[Instruction, Instruction]]:
        """Both sides of every `<` between whole numbers, fused ones included."""
        for instruction in condition.instructions.values():
            fusion = instruction if instruction.opcode == "fusion" else None
            inner = self.computations[fusion.called("calls") or ""] if fusion else condition
            for compare in inner.instructions.values() if fusion else [instruction]:
                if compare.opcode == "compare" and "direction=LT" in compare.attributes:
                    sides = [
                        _followed_out(inner.instructions[name], fusion, condition)
                        for name in compare.operands
                    ]
                    if all(side.shapes[0].dtype in ("s32", "u32") for side in sides):
                        yield sides[0], sides[1]

    def _start(self, caller: Computation, loop: Instruction, index: int) -> int:
        """What the counter starts at: a constant of the loop's operand, or 0."""
        state = caller.instructions.get(loop.operands[0])
        if state is None or state.opcode != "tuple" or index >= len(state.operands):
            return 0
        first = caller.instructions.get(state.operands[index])
        while first is not None and first.opcode == "copy":
            first = caller.instructions.get(first.operands[0])
        is_number = first is not None and first.opcode == "constant" and first.literal.isdigit()
        return int(first.literal) if first is not None and is_number else 0

    def _step(self, body: Computation, index: int) -> int:
        """What one trip adds to the counter; 1 unless the body says otherwise."""
        root = body.instructions[body.root]
        if root.opcode != "tuple" or index >= len(root.operands):
            return 1
        update = body.instructions.get(root.operands[index])
        if update is None or update.opcode != "add":
            return 1
        added = [body.instructions[n] for n in update.operands if n in body.instructions]
        steps = [int(i.literal) for i in added if i.opcode == "constant" and i.literal.isdigit()]
        return steps[0] if steps and steps[0] > 0 else 1


def _followed_out(
    instruction: Instruction, fusion: Instruction | None, caller: Computation
) -> Instruction:
    """What a fused computation's parameter is in its caller; everything else as it is."""
    if fusion is None or instruction.opcode != "parameter":
        return instruction
    return caller.instructions[fusion.operands[int(instruction.literal)]]


def parse(text: str) -> Program:
    """Returns the program that `compiled.as_text()` describes.

    Args:
      text: HLO text of an optimized module.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None:
            header = _COMPUTATION.match(line)
            if header:
                current = Computation(header.group(2))
                computations[current.name] = current
                entry = current.name if header.group(1) else entry
        elif line == "}":
            current = None
        else:
            found = _INSTRUCTION.match(line)
            if found:
                is_root, name, shapes, opcode, literal, rest = found.groups()
                operands = tuple(re.findall(r"%([\w.\-]+)", literal))
                current.instructions[name] = Instruction(
                    name, opcode, _shapes(shapes), operands, literal, rest
                )
                if is_root:
                    current.root = name
    return Program(computations, entry)


@functools.lru_cache(maxsize=4096)
def _shapes(text: str) -> tuple[Shape, ...]:
    """The arrays of a type."""
    shapes = []
    for dtype, dims, layout in _SHAPE.findall(text):
        space = _SPACE.search(layout)
        sizes = tuple(int(d.removeprefix("<=")) for d in dims.split(",") if d)
        shapes.append(Shape(dtype, sizes, int(space.group(1)) if space else 0))
    return tuple(shapes)
