"""Reads the text of a compiled XLA program: computations, instructions, shapes, and how often a loop runs."""

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


@dataclasses.dataclass(eq=False)
class Instruction:
    """One instruction.

    Attributes:
      opcode: For example `fusion`.
      shapes: Of its result; of all elements where that is a tuple.
      operands: What it reads.
      literal: What stands between its parentheses.
      attributes: Everything behind them.
      called: The computations that it names as `calls`, `to_apply`, `body` or `condition`.
      branches: Computations of a `conditional`, of which one runs.
      users: The instructions that read it.
    """

    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple["Instruction", ...] = dataclasses.field(repr=False)
    literal: str
    attributes: str
    called: dict[str, "Computation"] = dataclasses.field(repr=False)
    branches: list["Computation"] = dataclasses.field(repr=False)
    users: list["Instruction"] = dataclasses.field(default_factory=list, repr=False)

    @property
    def size(self) -> int:
        """Elements of its result."""
        return sum(shape.size for shape in self.shapes)

    @property
    def hbm_bytes(self) -> float:
        """Bytes of its result that lie in main memory."""
        return sum(shape.num_bytes for shape in self.shapes if shape.space == 0)

    def attribute(self, name: str) -> str | None:
        """Returns the text of `name={…}` or `name=word`, without the braces."""
        found = re.search(rf"\b{name}=(?:\{{([^{{}}]*)\}}|([^\s,]+))", self.attributes)
        return (found.group(1) or found.group(2) or "") if found else None

    def numbers(self, name: str) -> tuple[int, ...]:
        """Returns the whole numbers of `name={1,2}`."""
        return tuple(int(n) for n in re.findall(r"\d+", self.attribute(name) or ""))


@dataclasses.dataclass(eq=False)
class Computation:
    """Instructions in order; the one that is marked so is the root."""

    instructions: list[Instruction] = dataclasses.field(default_factory=list)
    root: Instruction = dataclasses.field(init=False, repr=False)

    @functools.cached_property
    def parameters(self) -> dict[int, Instruction]:
        """Parameter number -> instruction."""
        return {int(i.literal): i for i in self.instructions if i.opcode == "parameter"}


def parse(text: str) -> Computation:
    """Returns the computation that runs first of the program that `compiled.as_text()` describes.

    Args:
      text: HLO text of an optimized module. In it an instruction stands below its operands, and a computation below
        those that it calls.
    """
    computations: dict[str, Computation] = {}
    named: dict[str, Instruction] = {}
    entry = current = Computation()
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current = computations[header.group(2)] = Computation()
            entry, named = (current if header.group(1) else entry), {}
        elif found := _INSTRUCTION.match(line):
            is_root, name, shapes, opcode, literal, rest = found.groups()
            operands = tuple(named[n] for n in re.findall(r"%([\w.\-]+)", literal) if n in named)
            called = {k: computations[n] for k, n in _CALLED.findall(rest) if n in computations}
            listed = _BRANCHES.search(rest)
            branches = re.findall(r"[\w.\-]+", listed.group(1)) if listed else []
            instruction = named[name] = Instruction(
                opcode=opcode,
                shapes=_shapes(shapes),
                operands=operands,
                literal=literal,
                attributes=rest,
                called=called,
                branches=[computations[name] for name in branches],
            )
            current.instructions.append(instruction)
            for operand in dict.fromkeys(operands):
                operand.users.append(instruction)
            if is_root:
                current.root = instruction
    return entry


@functools.lru_cache(maxsize=4096)
def _shapes(text: str) -> tuple[Shape, ...]:
    """The arrays of a type."""
    shapes = []
    for dtype, dims, layout in _SHAPE.findall(text):
        space = _SPACE.search(layout)
        sizes = tuple(int(d.removeprefix("<=")) for d in dims.split(",") if d)
        shapes.append(Shape(dtype, sizes, int(space.group(1)) if space else 0))
    return tuple(shapes)


def trips(loop: Instruction) -> int | None:
    """Returns how often the body of a `while` runs at most, or None where the program does not say.

    Args:
      loop: The `while`.

    Returns:
      The compiler's own count, else the count from the constant that the condition compares the counter with: libtpu
      0.0.52 writes down none. A further condition may end the loop earlier.
    """
    known = _KNOWN_TRIPS.search(loop.attributes)
    if known:
        return int(known.group(1))
    for left, right in _comparisons(loop.called["condition"]):
        limit = _number(right)
        if left.opcode == "get-tuple-element" and limit is not None:
            index = int(left.attribute("index") or 0)
            return max(0, -(-(limit - _start(loop, index)) // _step(loop, index)))
    return None


def _comparisons(condition: Computation) -> Iterator[tuple[Instruction, Instruction]]:
    """Both sides of every `<` between whole numbers, fused ones included."""
    for instruction in condition.instructions:
        fused = instruction.called["calls"] if instruction.opcode == "fusion" else None
        for compare in fused.instructions if fused else [instruction]:
            if compare.opcode == "compare" and "direction=LT" in compare.attributes:
                # A fused computation's parameter is an operand of the fusion.
                left, right = (
                    instruction.operands[int(side.literal)]
                    if fused and side.opcode == "parameter"
                    else side
                    for side in compare.operands
                )
                if all(side.shapes[0].dtype in ("s32", "u32") for side in (left, right)):
                    yield left, right


def _start(loop: Instruction, index: int) -> int:
    """What the counter starts at: a constant of the loop's operand, or 0."""
    first = _element(loop.operands[0], index)
    while first is not None and first.opcode == "copy":
        first = first.operands[0]
    return _number(first) or 0


def _step(loop: Instruction, index: int) -> int:
    """What one trip adds to the counter; 1 unless the body says otherwise."""
    update = _element(loop.called["body"].root, index)
    if update is None or update.opcode != "add":
        return 1
    return next(filter(None, map(_number, update.operands)), 1)


def _element(instruction: Instruction, index: int) -> Instruction | None:
    """An element of a tuple, if that is what the instruction is."""
    is_long = instruction.opcode == "tuple" and index < len(instruction.operands)
    return instruction.operands[index] if is_long else None


def _number(instruction: Instruction | None) -> int | None:
    """The value of a constant, if that is what the instruction is."""
    is_number = instruction and instruction.opcode == "constant" and instruction.literal.isdigit()
    return int(instruction.literal) if instruction and is_number else None
