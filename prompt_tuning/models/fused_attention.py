"""Attention as one kernel, where the accelerator has one: logits and weights [B, N, Q, K] are not written to memory.

TPUs from v4 on run the kernel of `attention_kernel.py`, NVIDIA GPUs from Ampere on cuDNN's if told to. All else
keeps plain attention, as does what these kernels do not take or where it is too short for them to pay.
"""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax.linen import partitioning as nn_partitioning
from jax.sharding import AbstractMesh, PartitionSpec
from jaxtyping import Bool, Float

from prompt_tuning import partitioning
from prompt_tuning.models import masks
from prompt_tuning.models.config import T5Config

Kernel = Literal["tpu", "cudnn"]
# Logical axes of queries, keys and values.
_HEADS = ("batch", "length", "heads", "kv")
# Mosaic has no bfloat16 products there.
_TPUS_WITHOUT = ("TPU v2", "TPU v3")
# Below, the logits of plain attention stay on the core or cost little (docs/LOG.md, 2026-11-30). Unit: positions.
MIN_LENGTH = 128
# Compute capability.
_AMPERE = 8.0
# cuDNN's flash attention, before Hopper. The mask takes eight of these. Unit: features.
_CUDNN_MAX_DEPTH = 128
_CUDNN_MASK_DEPTH = 8


def choose(
    config: T5Config,
    query: Float[Any, "B Q N D"],
    key: Float[Any, "B K N D"],
    mask: Bool[Any, "B 1 _ K"] | None,
    bias: Float[Any, "1 N Q K"] | None,
) -> Kernel | None:
    """Returns the kernel that computes this attention on the devices of the current mesh; None for plain attention.

    Attention to the encoder stays plain: it has few queries and no bias, and a decoding step has one query.

    Args:
      config: The architecture; `config.attention` may ask for plain attention.
      query: What will attend; its shape and dtype count, as everybody's here.
      key: To what.
      mask: Of keys alone ([B, 1, 1, K]), or of pairs.
      bias: For all examples.
    """
    length = query.shape[1]
    if (
        config.attention == "plain"
        or mask is None
        or bias is None
        or bias.shape[0] != 1
        or length > key.shape[1]
        or length < MIN_LENGTH
    ):
        return None
    mesh, (batch_axes, head_axes) = jax.sharding.get_abstract_mesh(), _mesh_axes()
    batch, heads = query.shape[0], query.shape[2]
    batch_shards, head_shards = _num_shards(mesh, batch_axes), _num_shards(mesh, head_axes)
    device = _device()
    if device is None or batch % batch_shards or heads % head_shards:
        return None
    depth = query.shape[-1]
    keys = key.shape[1]
    if has_tpu_kernel() and _fits_tpu(device.device_kind, keys, heads // head_shards, depth):
        return "tpu"
    # Only by name: it has not been run on a GPU yet (docs/machines/gpu.md).
    asked = config.attention == "cudnn" and device.platform == "gpu"
    if asked and mask.shape[2] == 1 and _fits_gpu(query.dtype, (length, keys), depth):
        return "cudnn"
    return None


def has_tpu_kernel() -> bool:
    """Whether the devices of the current mesh are TPUs that run the kernel, for what it takes."""
    device = _device()
    if device is None or device.platform != "tpu":
        return False
    return device.device_kind not in _TPUS_WITHOUT


def _device() -> Any:
    """A device of the current mesh or, without a mesh, of the process; None for a mesh that does not say."""
    mesh = jax.sharding.get_abstract_mesh()
    return jax.devices()[0] if mesh.empty else mesh.abstract_device


def _fits_tpu(device_kind: str, length: int, heads: int, depth: int) -> bool:
    """Whether a TPU's kernel takes heads of this width on one device, and such a length."""
    # Imported where it is used: Pallas takes a second, which runs elsewhere need not spend.
    from prompt_tuning.models import attention_kernel

    is_small = device_kind == "TPU v4"
    longest = attention_kernel.SMALL_LENGTH if is_small else attention_kernel.MAX_LENGTH
    group = attention_kernel.heads_per_program(depth)
    return length <= longest and heads % group == 0 and group * depth % attention_kernel.LANES == 0


def _fits_gpu(dtype: Any, lengths: tuple[int, int], depth: int) -> bool:
    """Whether cuDNN's flash attention takes so many queries and keys with a bias."""
    # GPUs that are only described do not say it.
    capability = float(getattr(jax.devices()[0], "compute_capability", _AMPERE))
    depth += _CUDNN_MASK_DEPTH
    fits = depth <= _CUDNN_MAX_DEPTH and depth % 8 == 0 and not any(n % 2 for n in lengths)
    return fits and dtype == jnp.bfloat16 and capability >= _AMPERE


def attend(
    kernel: Kernel,
    query: Float[jax.Array, "B Q N D"],
    key: Float[jax.Array, "B K N D"],
    value: Float[jax.Array, "B K N D"],
    mask: Bool[Any, "B 1 _ K"],
    bias: Float[Any, "1 N Q K"],
) -> Float[jax.Array, "B Q N D"]:
    """Returns values weighted by the float32 softmax of the logits plus `bias`, as plain attention does.

    A row without any key attends uniformly, here too.

    Args:
      kernel: From `choose`.
      query: [B, Q, N, D].
      key: [B, K, N, D].
      value: [B, K, N, D], dropped out.
      mask: [B, 1, 1, K] or [B, 1, Q, K], True where attention is allowed.
      bias: [1, N, Q, K]; it gets a gradient where one is asked for.
    """
    if kernel == "cudnn":
        return _on_gpu(query, key, value, mask, bias)
    joined = (x.reshape(*x.shape[:2], -1) for x in (query, key, value))
    # Of pairs it is large, and -1e10 swallows logits in bfloat16 as well.
    dtype = jnp.float32 if mask.shape[2] == 1 else jnp.bfloat16
    out = _on_tpu(*joined, bias[0], masks.mask_bias(mask)[:, 0].astype(dtype))
    return out.reshape(query.shape)


def _mesh_axes() -> tuple[Any, Any]:
    """The mesh axes of batch and heads."""
    axes = nn_partitioning.logical_to_mesh_axes(_HEADS)
    return (None, None) if axes is None else (axes[0], axes[2])


def _names(axes: Any) -> tuple[str, ...]:
    return (axes,) if isinstance(axes, str) else tuple(axes or ())


def _num_shards(mesh: AbstractMesh, axes: Any) -> int:
    """Into how many parts a dimension on these mesh axes is cut."""
    return 1 if mesh.empty else math.prod(mesh.shape[name] for name in _names(axes))


def _on_each_device(call: Any, num_outputs: int, with_bias: bool) -> Any:
    """Returns `call`, which takes `_on_tpu`'s arguments and a gradient perhaps, as each device's work on its part."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return lambda *arguments: call(*arguments)
    batch_axes, head_axes = _mesh_axes()
    heads = PartitionSpec(batch_axes, None, head_axes)
    bias = PartitionSpec(head_axes, None, None)
    specs = (heads, heads, heads, bias, PartitionSpec(batch_axes, None, None), heads)

    def summed(*arguments: jax.Array) -> Any:
        outputs = call(*arguments)
        if with_bias:
            # Each device has seen its own examples.
            outputs[3] = jax.lax.psum(outputs[3], _names(batch_axes))
        return outputs

    def run(*arguments: jax.Array) -> Any:
        out_specs = heads if num_outputs == 1 else [heads, heads, heads, bias][:num_outputs]
        return jax.shard_map(
            summed, in_specs=specs[: len(arguments)], out_specs=out_specs, check_vma=False
        )(*arguments)

    return run


@jax.custom_vjp
def _on_tpu(query: Any, key: Any, value: Any, bias: Any, mask_bias: Any) -> jax.Array:
    """Attention of joined heads, as `attention_kernel.forward` takes it, on the current mesh."""
    from prompt_tuning.models import attention_kernel

    # Elsewhere tests run it.
    call = functools.partial(attention_kernel.forward, interpret=partitioning.platform() != "tpu")
    return _on_each_device(call, 1, with_bias=False)(query, key, value, bias, mask_bias)


def _on_tpu_forward(*arguments: Any) -> tuple[jax.Array, Any]:
    """The output, and what the backward pass needs: the arguments, and whether the bias is trained."""
    values = tuple(argument.value for argument in arguments)
    # Static, as part of the structure. A table that is frozen gets no gradient, and costs none.
    is_trained = () if arguments[3].perturbed else None
    return _on_tpu(*values), (values, is_trained)


def _on_tpu_backward(residuals: Any, gradient: Any) -> tuple[Any, ...]:
    """The gradients of `_on_tpu`'s arguments; None where there is none."""
    from prompt_tuning.models import attention_kernel

    values, is_trained = residuals
    if isinstance(gradient, jax.custom_derivatives.SymbolicZero):
        return (None,) * len(values)
    with_bias = is_trained is not None
    call = functools.partial(
        attention_kernel.backward, with_bias=with_bias, interpret=partitioning.platform() != "tpu"
    )
    outputs = _on_each_device(call, 3 + with_bias, with_bias)(*values, gradient)
    of_bias = outputs[3].astype(values[3].dtype) if with_bias else None
    return (*outputs[:3], of_bias, None)


_on_tpu.defvjp(_on_tpu_forward, _on_tpu_backward, symbolic_zeros=True)


def _on_gpu(query: Any, key: Any, value: Any, mask: Any, bias: Any) -> jax.Array:
    """Flash attention of cuDNN, with the mask as features of their own.

    JAX would add a mask to the bias before the call, as one array [B, N, Q, K].
    """
    extra = (*key.shape[:3], _CUDNN_MASK_DEPTH)
    is_first = jnp.arange(_CUDNN_MASK_DEPTH) == 0
    of_query = jnp.broadcast_to(is_first, extra).astype(query.dtype)
    of_key = jnp.where(is_first, masks.mask_bias(mask)[:, 0, 0, :, None, None], jnp.float32(0))
    wide = (
        jnp.concatenate([query, of_query], axis=-1),
        jnp.concatenate([key, jnp.broadcast_to(of_key, extra).astype(key.dtype)], axis=-1),
        jnp.pad(value, ((0, 0), (0, 0), (0, 0), (0, _CUDNN_MASK_DEPTH))),
    )
    out = jax.nn.dot_product_attention(
        *wide, bias=bias.astype(query.dtype), scale=1.0, implementation="cudnn"
    )
    return out[..., : value.shape[-1]]
