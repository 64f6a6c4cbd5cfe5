"""What one run of a compiled program does: operations, memory traffic and collectives, loops multiplied by their trips.

XLA's own cost analysis counts the body of a loop once. This one follows its conventions, so that a program without
loops has the same floating-point operations (see `flops_of`).
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterator

from prompt_tuning.commands.plan.hlo import Computation, Instruction, trips

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
# What a Pallas kernel says of itself.
_KERNEL = re.compile(r'"cost_estimate":\{"flops":"(\d+)".*?"bytes_accessed":"(\d+)"')
_SLICING = frozenset({"dynamic-slice", "slice", "gather"})


@dataclasses.dataclass(frozen=True)
class Costs:
    """Per core and run of the program.

    Attributes:
      flops: Operations as XLA counts them, two for a multiply-add; of a kernel, what it declares. Unit: operations.
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
        sent = dict(self.collectives)
        for kind, num_bytes in other.collectives.items():
            sent[kind] = sent.get(kind, 0.0) + num_bytes
        return Costs(
            self.flops + other.flops,
            self.bytes_moved + other.bytes_moved,
            sent,
            self.unknown_loops + other.unknown_loops,
        )

    def times(self, trips: int) -> "Costs":
        """Returns the costs of `trips` runs."""
        sent = {kind: trips * value for kind, value in self.collectives.items()}
        return Costs(trips * self.flops, trips * self.bytes_moved, sent, self.unknown_loops)


def costs_of(program: Computation, *, count_loops: bool = True) -> Costs:
    """Returns what one run of the program costs each core.

    Args:
      program: The compiled program of one core.
      count_loops: Whether bodies of loops count as often as they run; else once, as in XLA's cost analysis.
    """

    @functools.cache
    def visit(computation: Computation) -> Costs:
        return sum(map(one, computation.instructions), Costs())

    def one(instruction: Instruction) -> Costs:
        called = instruction.called
        if instruction.opcode == "while":
            costs = visit(called["body"]) + visit(called["condition"])
            num_trips = trips(instruction) if count_loops else 1
            if num_trips is None:
                return costs + Costs(unknown_loops=1)
            return costs.times(num_trips)
        if instruction.opcode == "conditional":
            return max(map(visit, instruction.branches), key=lambda costs: costs.flops)
        if instruction.opcode in ("call", "async-start"):
            return visit(called.get("to_apply") or called["calls"])
        sent = (Costs(collectives={kind: num_bytes}) for kind, num_bytes in _sent(instruction))
        return sum(sent, Costs(flops_of(instruction), _bytes_moved(instruction)))

    return visit(program)


def flops_of(instruction: Instruction) -> float:
    """Returns the operations of one instruction, those fused into it included.

    Args:
      instruction: Any but loops and calls.

    Source: XLA, `HloCostAnalysis` (hlo_cost_analysis.cc): the same figures by operation.
    """
    opcode, operands = instruction.opcode, instruction.operands
    if opcode in _ELEMENTWISE:
        return float(instruction.size)
    if opcode == "fusion":
        return sum(map(flops_of, instruction.called["calls"].instructions))
    if opcode == "dot":
        dims, depth = operands[0].shapes[0].dims, instruction.numbers("lhs_contracting_dims")
        return 2.0 * instruction.size * math.prod(dims[dim] for dim in depth)
    if opcode == "convolution":
        return _convolution_flops(instruction)
    if opcode == "reduce":
        # Half of the operands are initial values.
        shapes = [shape for operand in operands for shape in operand.shapes]
        inputs = sum(shape.size for shape in shapes[: len(shapes) // 2])
        return float(max(0, inputs - instruction.size)) * _per_element(instruction)
    if opcode == "reduce-window":
        # On TPUs this is a reduction whose result is broadcast again: every window covers its whole dimension.
        return float(operands[0].size * _per_element(instruction))
    kernel = _KERNEL.search(instruction.attributes) if opcode == "custom-call" else None
    return float(kernel.group(1)) if kernel else 0.0


def _per_element(instruction: Instruction) -> int:
    """Operations of the scalar function that a reduction applies, for each of its outputs."""
    applied = instruction.called.get("to_apply")
    if applied is None:
        return 1
    count = sum(i.opcode in _ELEMENTWISE for i in applied.instructions)
    return max(1, count // max(1, len(instruction.shapes)))


def _window(instruction: Instruction) -> dict[str, list[int]]:
    """The window of a convolution: name -> one entry for each spatial dimension; of the padding, the lower side."""
    found: dict[str, list[int]] = {}
    text = instruction.attribute("window") or ""
    for name, value in re.findall(r"(\w+)=(\S+)", text):
        found[name] = [int(part.split("_")[0]) for part in value.split("x")]
    return found


def _convolution_flops(instruction: Instruction) -> float:
    """Multiply-adds that do not fall on padding or holes, times two."""
    inputs, kernel = (operand.shapes[0] for operand in instruction.operands[:2])
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


def _bytes_moved(instruction: Instruction) -> float:
    """Main memory that one instruction outside a fusion reads and writes."""
    opcode, operands = instruction.opcode, instruction.operands
    is_allocation = 'custom_call_target="AllocateBuffer"' in instruction.attributes
    if opcode in _FREE or opcode.endswith("-done") or is_allocation:
        return 0.0
    written, read = instruction.hbm_bytes, sum(operand.hbm_bytes for operand in operands)
    if opcode in _SLICING:
        # It reads as much as it takes.
        return 2 * written if operands[0].hbm_bytes else written
    if opcode == "dynamic-update-slice":
        return 2.0 * operands[1].hbm_bytes
    if opcode == "copy-start":
        # Its result names source and destination.
        return written
    if opcode == "slice-start":
        # Its result names the source, the slice and a token; slices are mostly brought to the core.
        part = instruction.shapes[len(operands[0].shapes)]
        return part.num_bytes * (2 if part.space == 0 else 1)
    if opcode.endswith("-start"):
        return 2.0 * read
    if opcode == "custom-call" and (kernel := _KERNEL.search(instruction.attributes)):
        # What it reads more than once is read from main memory again.
        arrays = (*instruction.shapes, *(s for operand in operands for s in operand.shapes))
        once = sum(shape.num_bytes for shape in arrays)
        return written + read + max(0.0, float(kernel.group(2)) - once)
    if opcode != "fusion":
        return written + read
    parameters = instruction.called["calls"].parameters
    written, in_place = _written(instruction)
    for number, operand in enumerate(operands):
        parameter = parameters.get(number)
        if parameter is not None and parameter not in in_place:
            written += min(operand.hbm_bytes, _read(parameter, operand.hbm_bytes))
    return written


def _read(parameter: Instruction, whole: float) -> float:
    """Bytes that a fused computation reads of a parameter: the slices, if it only slices it."""
    total = 0.0
    for user in parameter.users:
        if user.opcode == "bitcast" or _is_in_place(user):
            total += _read(user, whole)
        elif user.opcode == "fusion":
            inner = user.called["calls"].parameters
            places = [n for n, operand in enumerate(user.operands) if operand is parameter]
            total += sum(_read(inner[n], whole) for n in places)
        elif user.opcode in _SLICING and user.operands[0] is parameter:
            total += sum(shape.num_bytes for shape in user.shapes)
        else:
            return whole
    return total


def _is_in_place(instruction: Instruction) -> bool:
    """Whether this is a fusion that is its first operand in another tiling and shares its memory: libtpu has int8 so.

    Nothing is copied there, inside another fusion, which reads no more of the operand than what is taken of the result.
    """
    aliased = "output_to_operand_aliasing={{}: (0, {})}" in instruction.attributes
    if instruction.opcode != "fusion" or not aliased:
        return False
    return _behind(instruction.called["calls"].root).opcode == "parameter"


def _written(fusion: Instruction) -> tuple[float, set[Instruction]]:
    """Bytes that a fusion writes, and its parameters that it changes in place by updating a slice."""
    root = fusion.called["calls"].root
    roots = root.operands if root.opcode == "tuple" else (root,)
    if len(roots) != len(fusion.shapes):
        return fusion.hbm_bytes, set()
    total, in_place = 0.0, set()
    for shape, value in zip(fusion.shapes, map(_behind, roots), strict=True):
        if value.opcode == "dynamic-update-slice":
            target = _behind(value.operands[0])
            if target.opcode == "parameter":
                in_place.add(target)
                shape = value.operands[1].shapes[0]
        if shape.space == 0:
            total += shape.num_bytes
    return total, in_place


def _behind(instruction: Instruction) -> Instruction:
    """What an instruction is another view of."""
    while instruction.opcode in ("bitcast", "copy") and instruction.operands:
        instruction = instruction.operands[0]
    return instruction


def _sent(instruction: Instruction) -> Iterator[tuple[str, float]]:
    """Yields (kind, bytes this core sends) of the collectives in one instruction."""
    if instruction.opcode == "fusion":
        for fused in instruction.called["calls"].instructions:
            yield from _sent(fused)
        return
    kind = instruction.opcode.removesuffix("-start")
    if kind not in _SENT_SHARE:
        return
    users = instruction.users
    # A collective that is spread over several fusions stands in each of them; it starts in one.
    if "chain_id=" in instruction.attributes and not any(
        "AsyncCollectiveStart" in user.attributes for user in users
    ):
        return
    if kind == "all-reduce" and users and all(user.opcode == "dynamic-slice" for user in users):
        kind = "reduce-scatter"
    whole = sum(shape.num_bytes for operand in instruction.operands for shape in operand.shapes)
    yield kind, whole * _SENT_SHARE[kind](group_size(instruction.attributes, default=2))


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
        # A part of an axis is written 'axis':(first)size.
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", mesh.group(2))
        return math.prod(int(part) if part else sizes[name] for name, part in axes)
    tiled = re.search(r"replica_groups=\[\d+,(\d+)\]", attributes)
    if tiled:
        return int(tiled.group(1))
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", attributes)
    return len(listed.group(1).split(",")) if listed else default
