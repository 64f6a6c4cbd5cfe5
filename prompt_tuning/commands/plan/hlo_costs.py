"""What one run of a compiled program does: operations, memory traffic and collectives, loops multiplied by their trips.

XLA's own cost analysis counts the body of a loop once. This one follows its conventions, so that a program without
loops has the same floating-point operations (see `flops_of`).
"""

import dataclasses
import re
from collections.abc import Callable, Iterator

from prompt_tuning.commands.plan.hlo import Computation, Instruction, Program

COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
# One operation for each element of the result, integer arithmetic included, as in XLA's cost analysis; there
# transcendental functions are no FLOPs.
_ELEMENTWISE = frozenset(
    "add subtract multiply divide remainder maximum minimum and or xor not negate abs sign compare select clamp"
    " convert floor ceil round-nearest-afz round-nearest-even is-finite shift-left shift-right-logical"
    " shift-right-arithmetic reduce-precision popcnt count-leading-zeros mulhi".split()
)
# What moves no data: bookkeeping, and the ends of what was counted at its start.
_FREE = frozenset(
    "parameter constant tuple get-tuple-element bitcast after-all partition-id replica-id while conditional call"
    " opt-barrier iota".split()
)
# Settings of a window beside its size, and what they are where they are not written.
_WINDOW = (("stride", 1), ("pad", 0), ("lhs_dilate", 1), ("rhs_dilate", 1))
_SLICING = frozenset({"dynamic-slice", "slice", "gather"})


@dataclasses.dataclass(frozen=True)
class Costs:
    """Per core and run of the program.

    Attributes:
      flops: Operations as XLA counts them, two for a multiply-add. Unit: operations.
      bytes_moved: Main memory read and written by each fused operation, an estimate. Unit: bytes.
      collectives: Bytes that this core sends in ring algorithms, by kind. Unit: bytes.
      unknown_loops: Loops whose trips the program does not say; they are counted once.
    """

    flops: float = 0.0
    bytes_moved: float = 0.0
    collectives: dict[str, float] = dataclasses.field(default_factory=dict)
    unknown_loops: int = 0

    def __add__(self, other: "Costs") -> "Costs":
        """Returns the sum."""
        kinds = self.collectives | other.collectives
        return Costs(
            self.flops + other.flops,
            self.bytes_moved + other.bytes_moved,
            {
                kind: self.collectives.get(kind, 0.0) + other.collectives.get(kind, 0.0)
                for kind in kinds
            },
            self.unknown_loops + other.unknown_loops,
        )

    def times(self, trips: int) -> "Costs":
        """Returns the costs of `trips` runs."""
        sent = {kind: trips * value for kind, value in self.collectives.items()}
        return Costs(trips * self.flops, trips * self.bytes_moved, sent, self.unknown_loops)


def costs_of(program: Program, *, count_loops: bool = True) -> Costs:
    """Returns what one run of the program costs each core.

    Args:
      program: The compiled program of one core.
      count_loops: Whether bodies of loops count as often as they run; else once, as in XLA's cost analysis.
    """
    done: dict[str, Costs] = {}

    def visit(name: str) -> Costs:
        if name not in done:
            computation = program.computations[name]
            done[name] = sum(
                (one(computation, i) for i in computation.instructions.values()), Costs()
            )
        return done[name]

    def one(computation: Computation, instruction: Instruction) -> Costs:
        opcode = instruction.opcode
        if opcode == "while":
            body, condition = (visit(instruction.called(k) or "") for k in ("body", "condition"))
            trips = program.trips(instruction, computation) if count_loops else 1
            if trips is None:
                return body + condition + Costs(unknown_loops=1)
            return (body + condition).times(trips)
        if opcode == "conditional":
            return max((visit(name) for name in instruction.branches), key=lambda c: c.flops)
        if opcode in ("call", "async-start"):
            return visit(instruction.called("to_apply") or instruction.called("calls") or "")
        return Costs(
            flops_of(program, computation, instruction),
            _bytes_moved(program, computation, instruction),
            dict(_merged(_sent(program, computation, instruction))),
        )

    return visit(program.entry)


def _merged(pairs: Iterator[tuple[str, float]]) -> dict[str, float]:
    """Sums by kind."""
    found: dict[str, float] = {}
    for kind, sent in pairs:
        found[kind] = found.get(kind, 0.0) + sent
    return found


def flops_of(program: Program, computation: Computation, instruction: Instruction) -> float:
    """Returns the operations of one instruction, those fused into it included.

    Args:
      program: The program.
      computation: Where the instruction stands.
      instruction: Any but loops and calls.

    Source: XLA, `HloCostAnalysis` (hlo_cost_analysis.cc): the same figures by operation.
    """
    opcode = instruction.opcode
    if opcode in _ELEMENTWISE:
        return float(instruction.size)
    if opcode == "fusion":
        inner = program.computations[instruction.called("calls") or ""]
        return sum(flops_of(program, inner, i) for i in inner.instructions.values())
    if opcode == "dot":
        left = computation.operand_shapes(instruction)[0][0]
        depth = 1
        for dim in instruction.numbers("lhs_contracting_dims"):
            depth *= left.dims[dim]
        return 2.0 * instruction.size * depth
    if opcode == "convolution":
        return _convolution_flops(computation, instruction)
    if opcode == "reduce":
        # Half of the operands are initial values.
        shapes = [shape for operand in computation.operand_shapes(instruction) for shape in operand]
        inputs = sum(shape.size for shape in shapes[: len(shapes) // 2])
        return float(max(0, inputs - instruction.size)) * _per_element(program, instruction)
    if opcode == "reduce-window":
        # On TPUs this is a reduction whose result is broadcast again: every window covers its whole dimension.
        inputs = sum(s.size for s in computation.operand_shapes(instruction)[0])
        return float(inputs * _per_element(program, instruction))
    return 0.0


def _per_element(program: Program, instruction: Instruction) -> int:
    """Operations of the scalar function that a reduction applies, for each of its outputs."""
    applied = program.computations.get(instruction.called("to_apply") or "")
    if applied is None:
        return 1
    count = sum(i.opcode in _ELEMENTWISE for i in applied.instructions.values())
    return max(1, count // max(1, len(instruction.shapes)))


def _window(instruction: Instruction) -> dict[str, list[int]]:
    """The window of a convolution: name -> one entry for each spatial dimension; of the padding, the lower side."""
    found: dict[str, list[int]] = {}
    text = instruction.attribute("window") or ""
    for name, value in re.findall(r"(\w+)=(\S+)", text):
        found[name] = [int(part.split("_")[0]) for part in value.split("x")]
    return found


def _convolution_flops(computation: Computation, instruction: Instruction) -> float:
    """Multiply-adds that do not fall on padding or holes, times two."""
    inputs, kernel = (shapes[0] for shapes in computation.operand_shapes(instruction)[:2])
    names = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert names is not None, instruction.attributes
    in_labels, kernel_labels, out_labels = names.groups()
    output = instruction.shapes[0]
    window = _window(instruction)
    valid = 1
    for dim in range(sum(label.isdigit() for label in kernel_labels)):
        label = str(dim)
        valid *= _valid_positions(
            inputs.dims[in_labels.index(label)],
            kernel.dims[kernel_labels.index(label)],
            output.dims[out_labels.index(label)],
            *(window[name][dim] if name in window else default for name, default in _WINDOW),
        )
    # The kernel's input features are those of one group.
    features = kernel.dims[kernel_labels.index("i")] * output.dims[out_labels.index("f")]
    groups = (instruction.numbers("batch_group_count") or (1,))[0]
    return 2.0 * features * output.dims[out_labels.index("b")] * valid / groups


def _valid_positions(
    size: int, kernel: int, out: int, stride: int, pad: int, lhs_dilate: int, rhs_dilate: int
) -> int:
    """Pairs of output and kernel positions along one dimension that meet an element of the input."""
    dilated = (size - 1) * lhs_dilate + 1
    count = 0
    for k in range(kernel):
        first = k * rhs_dilate - pad
        # Output o reads dilated position o * stride + first.
        if stride == lhs_dilate == 1:
            count += max(0, min(out - 1, dilated - 1 - first) - max(0, -first) + 1)
            continue
        positions = (o * stride + first for o in range(out))
        count += sum(0 <= p < dilated and p % lhs_dilate == 0 for p in positions)
    return count


def _bytes_moved(program: Program, computation: Computation, instruction: Instruction) -> float:
    """Main memory that one instruction outside a fusion reads and writes."""
    opcode = instruction.opcode
    is_allocation = 'custom_call_target="AllocateBuffer"' in instruction.attributes
    if opcode in _FREE or opcode.endswith("-done") or is_allocation:
        return 0.0
    outputs = sum(shape.num_bytes for shape in instruction.shapes if shape.space == 0)
    operands = computation.operand_shapes(instruction)
    if opcode in _SLICING:
        read = outputs if any(s.space == 0 for s in operands[0]) else 0.0
        return outputs + read
    if opcode == "dynamic-update-slice":
        return 2.0 * sum(s.num_bytes for s in operands[1] if s.space == 0)
    if opcode == "copy-start":
        # Its result names source and destination.
        return outputs
    if opcode.endswith("-start"):
        read = sum(s.num_bytes for shapes in operands for s in shapes if s.space == 0)
        return 2.0 * read
    if opcode != "fusion":
        return outputs + sum(s.num_bytes for shapes in operands for s in shapes if s.space == 0)
    inner = program.computations[instruction.called("calls") or ""]
    written, in_place = _written(inner, instruction)
    for number, shapes in enumerate(operands):
        parameter = inner.parameters.get(number)
        if parameter is None or parameter.name in in_place:
            continue
        if any(shape.space == 0 for shape in shapes):
            whole = sum(shape.num_bytes for shape in shapes if shape.space == 0)
            written += min(whole, _read(program, inner, parameter, whole))
    return written


def _read(program: Program, inner: Computation, parameter: Instruction, whole: float) -> float:
    """Bytes that a fused computation reads of a parameter: the slices, if it only slices it."""
    total = 0.0
    for user in inner.users[parameter.name]:
        if user.opcode == "bitcast":
            total += _read(program, inner, user, whole)
        elif user.opcode == "fusion":
            nested = program.computations[user.called("calls") or ""]
            if _is_in_place(nested, user):
                total += _read(program, inner, user, whole)
                continue
            places = [n for n, name in enumerate(user.operands) if name == parameter.name]
            total += sum(_read(program, nested, nested.parameters[n], whole) for n in places)
        elif user.opcode in _SLICING and user.operands[0] == parameter.name:
            total += sum(shape.num_bytes for shape in user.shapes)
        else:
            return whole
    return total


def _is_in_place(nested: Computation, fusion: Instruction) -> bool:
    """Whether a fusion is its first operand in another tiling and shares its memory: the compiler has int8 so.

    Nothing is copied there, inside another fusion, which reads no more of the operand than what is taken of the result.
    """
    aliased = "output_to_operand_aliasing={{}: (0, {})}" in fusion.attributes
    return aliased and _behind(nested, nested.instructions[nested.root]).opcode == "parameter"


def _written(inner: Computation, fusion: Instruction) -> tuple[float, set[str]]:
    """Bytes that a fusion writes, and its parameters that it changes in place by updating a slice."""
    root = inner.instructions[inner.root]
    roots = [root]
    if root.opcode == "tuple":
        roots = [inner.instructions[name] for name in root.operands]
    if len(roots) != len(fusion.shapes):
        return sum(s.num_bytes for s in fusion.shapes if s.space == 0), set()
    total, in_place = 0.0, set()
    for shape, value in zip(fusion.shapes, roots, strict=True):
        value = _behind(inner, value)
        if value.opcode == "dynamic-update-slice":
            target = _behind(inner, inner.instructions[value.operands[0]])
            if target.opcode == "parameter":
                in_place.add(target.name)
                shape = inner.instructions[value.operands[1]].shapes[0]
        if shape.space == 0:
            total += shape.num_bytes
    return total, in_place


def _behind(inner: Computation, instruction: Instruction) -> Instruction:
    """What an instruction is another view of."""
    while instruction.opcode in ("bitcast", "copy") and instruction.operands[0] in (
        inner.instructions
    ):
        instruction = inner.instructions[instruction.operands[0]]
    return instruction


def _sent(
    program: Program, computation: Computation, instruction: Instruction
) -> Iterator[tuple[str, float]]:
    """Yields (kind, bytes this core sends) of the collectives in one instruction."""
    if instruction.opcode == "fusion":
        inner = program.computations[instruction.called("calls") or ""]
        for fused in inner.instructions.values():
            yield from _sent(program, inner, fused)
        return
    kind = instruction.opcode.removesuffix("-start")
    if kind not in COLLECTIVES:
        return
    users = computation.users[instruction.name]
    # A collective that is spread over several fusions stands in each of them; it starts in one.
    if "chain_id=" in instruction.attributes and not any(
        "AsyncCollectiveStart" in user.attributes for user in users
    ):
        return
    if kind == "all-reduce" and users and all(user.opcode == "dynamic-slice" for user in users):
        kind = "reduce-scatter"
    whole = sum(s.num_bytes for shapes in computation.operand_shapes(instruction) for s in shapes)
    size = group_size(instruction.attributes, default=2)
    yield kind, whole * _SENT_SHARE[kind](size)


# Share of its operand that a core of a ring of n sends.
_SENT_SHARE: dict[str, Callable[[int], float]] = {
    "all-gather": lambda n: n - 1,
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
}


def group_size(attributes: str, default: int) -> int:
    """Returns how many cores take part in one group of a collective.

    Args:
      attributes: Text with `replica_groups={{0,1},{2,3}}`, `[4,2]<=[8]`, or `mesh['a'=2,'b'=4] {'b'}`.
      default: Returned where it names no groups.
    """
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes)
    if mesh:
        sizes = {name: int(n) for name, n in re.findall(r"'([^']+)'=(\d+)", mesh.group(1))}
        product = 1
        # A part of an axis is written 'axis':(first)size.
        for name, part in re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", mesh.group(2)):
            product *= int(part) if part else sizes[name]
        return product
    tiled = re.search(r"replica_groups=\[\d+,(\d+)\]", attributes)
    if tiled:
        return int(tiled.group(1))
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", attributes)
    return len(listed.group(1).split(",")) if listed else default
