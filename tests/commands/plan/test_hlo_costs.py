"""Costs of compiled programs against counts by hand and against XLA's own analysis."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from prompt_tuning.commands.plan import hlo, hlo_costs

WIDTH, ROWS, LAYERS = 64, 32, 5
LAYER_FLOPS = 2 * ROWS * WIDTH * WIDTH


def compile_layers(scanned: bool):
    """A stack of matrix products, in a loop or one after the other."""

    def layer(x, w):
        return jnp.dot(x, w), None

    def run(x, ws):
        if scanned:
            return jax.lax.scan(layer, x, ws)[0]
        for i in range(LAYERS):
            x, _ = layer(x, ws[i])
        return x

    shapes = ((ROWS, WIDTH), (LAYERS, WIDTH, WIDTH))
    return jax.jit(run).lower(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes)).compile()


def program_of(compiled) -> hlo.Computation:
    text = compiled.as_text()
    assert text is not None
    return hlo.parse(text)


@pytest.mark.parametrize("scanned", [True, False])
def test_products_are_counted_as_often_as_they_run(scanned):
    costs = hlo_costs.costs_of(program_of(compile_layers(scanned)))
    assert costs.unknown_loops == 0
    assert LAYERS * LAYER_FLOPS <= costs.flops < 1.01 * LAYERS * LAYER_FLOPS


def test_a_loop_counted_once_is_what_xla_counts():
    compiled = compile_layers(True)
    once = hlo_costs.costs_of(program_of(compiled), count_loops=False)
    analysis = compiled.cost_analysis()
    assert analysis is not None
    assert once.flops == pytest.approx(analysis["flops"], rel=0.01)


LOOP = """\
HloModule test

%body (p: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {
  %p = (s32[], f32[8,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %two = s32[] constant(2)
  %next = s32[] add(%i, %two)
  %x = f32[8,8]{1,0} get-tuple-element(%p), index=1
  %y = f32[8,8]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %out = (s32[], f32[8,8]{1,0}) tuple(%next, %y)
}

%condition (p: (s32[], f32[8,8])) -> pred[] {
  %p = (s32[], f32[8,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %limit = s32[] constant(11)
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (x: f32[8,8]) -> f32[8,8] {
  %x = f32[8,8]{1,0} parameter(0)
  %start = s32[] constant(1)
  %state = (s32[], f32[8,8]{1,0}) tuple(%start, %x)
  %loop = (s32[], f32[8,8]{1,0}) while(%state), condition=%condition, body=%body
  ROOT %y = f32[8,8]{1,0} get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(
    ("old", "new", "trips"),
    [
        ("", "", 5),
        ("constant(11)", "constant(12)", 6),
        ("%start = s32[] constant(1)", "%start = s32[] constant(0)", 6),
        ("constant(2)", "constant(1)", 10),
        ("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"7"}}', 7),
    ],
)
def test_trips_follow_from_start_step_and_bound(old, new, trips):
    program = hlo.parse(LOOP.replace(old, new, 1))
    costs = hlo_costs.costs_of(program)
    assert costs.unknown_loops == 0
    # One addition and one comparison beside the product.
    assert costs.flops == trips * (2 * 8**3 + 2)


def test_a_loop_of_unknown_length_is_told_and_counted_once():
    costs = hlo_costs.costs_of(hlo.parse(LOOP.replace("direction=LT", "direction=NE")))
    assert costs.unknown_loops == 1
    assert costs.flops == 2 * 8**3 + 2


CONVOLUTION = """\
HloModule test

ENTRY %main (x: f32[4,6,12,32], k: f32[16,12,32,1]) -> f32[4,6,12,16] {{
  %x = {x} parameter(0)
  %k = {k} parameter(1)
  ROOT %y = {y} convolution(%x, %k), window={{{window}}}, dim_labels={labels}
}}
"""


@pytest.mark.parametrize(
    ("x", "k", "y", "window", "labels", "flops"),
    [
        # A product [4 * 6, 32] x [32, 16].
        ("bf16[4,6,32]", "bf16[32,16,1]", "bf16[4,6,16]", "size=1", "0bf_io0->0bf", 2 * 4 * 6 * 32 * 16),
        # [4 * 6, 32] x [32, 12, 16]: each of the 12 outputs meets one of the kernel's 12 places, the rest is padding.
        ("bf16[4,6,32,1]", "bf16[32,12,16,1]", "bf16[4,6,12,16]",
         "size=1x12 pad=0_0x11_11 rhs_reversal=0x1", "0bf1_i1o0->0b1f", 2 * 4 * 6 * 32 * 12 * 16),
        # A batched product of attention, written with holes between the batches.
        ("bf16[4,6,12,8]", "bf16[4,6,12,8]", "f32[4,12,6,6]",
         "size=4x12 stride=3x11 lhs_dilate=4x12", "0b1f_0o1i->01bf", 2 * 4 * 12 * 6 * 6 * 8),
    ],
)  # fmt: skip
def test_convolutions_count_what_is_not_padding(x, k, y, window, labels, flops):
    text = CONVOLUTION.format(x=x, k=k, y=y, window=window, labels=labels)
    assert hlo_costs.costs_of(hlo.parse(text)).flops == flops


def test_collectives_are_what_a_ring_sends():
    devices = jax.devices()[:4]
    mesh = Mesh(devices, ("model",))
    rows = NamedSharding(mesh, PartitionSpec("model", None))
    columns = NamedSharding(mesh, PartitionSpec(None, "model"))
    x = jax.ShapeDtypeStruct((ROWS, WIDTH), jnp.float32, sharding=columns)
    w = jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32, sharding=rows)
    replicated = NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(jnp.dot, out_shardings=replicated).lower(x, w).compile()
    costs = hlo_costs.costs_of(program_of(compiled))
    assert costs.collectives == {"all-reduce": ROWS * WIDTH * 4 * 2 * 3 / 4}


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}, x", 4),
        ("replica_groups=[4,2]<=[2,4]T(1,0), x", 2),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, x", 4),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0','axis_1'}, x", 8),
        ("replica_groups=mesh['axis_0'=8] {'axis_0':(1)2}, x", 2),
        ("source_target_pairs={{0,1}}", 3),
    ],
)
def test_group_sizes_in_every_notation(groups, size):
    assert hlo_costs.group_size(groups, default=3) == size


SPREAD = """\
HloModule test

%start (x: bf16[2,8]) -> (bf16[2,8], bf16[8,8]) {
  %x = bf16[2,8]{1,0} parameter(0)
  %gather.1 = bf16[8,8]{1,0} all-gather(%x), replica_groups={{0,1,2,3}}, frontend_attributes={chain_id="4"}
  ROOT %call = (bf16[2,8]{1,0}, bf16[8,8]{1,0}) custom-call(%gather.1), custom_call_target="AsyncCollectiveStart"
}

%step (x: bf16[2,8]) -> bf16[8,8] {
  %x = bf16[2,8]{1,0} parameter(0)
  ROOT %gather.2 = bf16[8,8]{1,0} all-gather(%x), replica_groups={{0,1,2,3}}, frontend_attributes={chain_id="4"}
}

%scatter (x: bf16[8,8]) -> bf16[2,8] {
  %x = bf16[8,8]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %sum = bf16[8,8]{1,0} all-reduce(%x), replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %slice = bf16[2,8]{1,0} dynamic-slice(%sum, %zero, %zero), dynamic_slice_sizes={2,8}
}

ENTRY %main (x: bf16[2,8]) -> bf16[2,8] {
  %x = bf16[2,8]{1,0} parameter(0)
  %a = (bf16[2,8]{1,0}, bf16[8,8]{1,0}) fusion(%x), kind=kCustom, calls=%start
  %b = bf16[8,8]{1,0} fusion(%x), kind=kCustom, calls=%step
  ROOT %c = bf16[2,8]{1,0} fusion(%b), kind=kCustom, calls=%scatter
}
"""


def test_a_collective_spread_over_fusions_counts_once_and_a_sliced_sum_is_a_reduce_scatter():
    costs = hlo_costs.costs_of(hlo.parse(SPREAD))
    shard = 2 * 8 * 2
    assert costs.collectives == {"all-gather": 3 * shard, "reduce-scatter": 3 * shard}


TRAFFIC = """\
HloModule test

%sliced (w: f32[10,8,8], i: s32[]) -> f32[1,8,8] {
  %w = f32[10,8,8]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  ROOT %s = f32[1,8,8]{2,1,0} dynamic-slice(%w, %i, %i, %i), dynamic_slice_sizes={1,8,8}
}

%updated (w: f32[10,8,8], x: f32[1,8,8], i: s32[]) -> f32[10,8,8] {
  %w = f32[10,8,8]{2,1,0} parameter(0)
  %x = f32[1,8,8]{2,1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %u = f32[10,8,8]{2,1,0} dynamic-update-slice(%w, %x, %i, %i, %i)
}

ENTRY %main (w: f32[10,8,8], i: s32[]) -> f32[10,8,8] {
  %w = f32[10,8,8]{2,1,0} parameter(0)
  %i = s32[]{:S(6)} parameter(1)
  %x = f32[1,8,8]{2,1,0} fusion(%w, %i), kind=kLoop, calls=%sliced
  %fast = f32[1,8,8]{2,1,0:S(1)} negate(%x)
  ROOT %u = f32[10,8,8]{2,1,0} fusion(%w, %fast, %i), kind=kLoop, calls=%updated
}
"""


# As libtpu 0.0.52 writes the product with one layer of stacked int8 kernels.
RETILED = """\
HloModule test

%retiled (input: s8[10,32,128]) -> s8[10,32,128] {
  %input = s8[10,32,128]{2,1,0:T(32,128)(4,1)} parameter(0)
  ROOT %copy = s8[10,32,128]{2,1,0:T(8,128)(4,1)} copy(%input)
}

%sliced (w: s8[10,32,128], i: s32[]) -> s8[1,32,128] {
  %w = s8[10,32,128]{2,1,0:T(32,128)(4,1)} parameter(0)
  %f = s8[10,32,128]{2,1,0:T(8,128)(4,1)} fusion(%w), kind=kLoop, ALIASED, calls=%retiled
  %i = s32[] parameter(1)
  ROOT %s = s8[1,32,128]{2,1,0:T(8,128)(4,1)} dynamic-slice(%f, %i, %i, %i), dynamic_slice_sizes={1,32,128}
}

ENTRY %main (w: s8[10,32,128], i: s32[]) -> s8[1,32,128] {
  %w = s8[10,32,128]{2,1,0:T(32,128)(4,1)} parameter(0)
  %i = s32[]{:S(6)} parameter(1)
  ROOT %x = s8[1,32,128]{2,1,0} fusion(%w, %i), kind=kLoop, calls=%sliced
}
"""


@pytest.mark.parametrize(
    ("attribute", "read"),
    [("output_to_operand_aliasing={{}: (0, {})}", 1), ('metadata={op_name="copy"}', 10)],
)
def test_a_stack_in_another_tiling_is_read_as_far_as_it_is_used(attribute, read):
    layer = 32 * 128
    program = hlo.parse(RETILED.replace("ALIASED", attribute))
    assert hlo_costs.costs_of(program).bytes_moved == (read + 1) * layer


def test_traffic_counts_slices_and_leaves_out_what_stays_on_the_core():
    block = 8 * 8 * 4
    # Slice read and written, read again for the negation; the update is written.
    assert hlo_costs.costs_of(hlo.parse(TRAFFIC)).bytes_moved == 4 * block


# A kernel reads its second operand twice; one fourth of the first is brought to the core.
KERNEL = """\
HloModule test

ENTRY %main (x: f32[8,8], m: f32[8]) -> f32[8,8] {
  %x = f32[8,8]{1,0} parameter(0)
  %m = f32[8]{0} parameter(1)
  %start = ((f32[8,8]{1,0}), f32[2,8]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%x), slice={[0:2], [0:8]}
  %part = f32[2,8]{1,0:S(1)} slice-done(%start)
  ROOT %y = f32[8,8]{1,0} custom-call(%part, %m), custom_call_target="tpu_custom_call", backend_config={CONFIG}
}
"""


def test_a_kernel_counts_what_it_declares():
    declared = '"cost_estimate":{"flops":"1000","transcendentals":"7","bytes_accessed":"384"}'
    costs = hlo_costs.costs_of(hlo.parse(KERNEL.replace("CONFIG", declared)))
    assert costs.flops == 1000
    row = 8 * 4
    # The part read; the result written, the vector read twice.
    assert costs.bytes_moved == 2 * row + 8 * row + 2 * row
