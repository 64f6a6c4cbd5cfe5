"""The device mesh and the rules that place every parameter, activation and batch on it.

The mesh has two axes: `data` (replicas of the model, each with its slice of the batch) and `model` (one replica's
weights spread over several devices). Arrays carry logical axis names; `logical_axis_rules` maps these to mesh axes.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
from flax.linen import partitioning as flax_partitioning
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from prompt_tuning.errors import ConfigError, check_choice

# (logical axis name, mesh axis or None for replicated); the first rule whose mesh axis is still free wins.
LogicalAxisRules = tuple[tuple[str, str | None], ...]

_MESH_AXES = ("data", "model")
# Submeshes and sizes listed in an error; more would not be read.
_MAX_LISTED = 16


# Axes of a prompt, and of what methods have beside it: small, and whole on every device unless rules name them.
_OF_PROMPTS = ("prompt", "prompt_embed", "tasks", "rank", "bottleneck")


def standard_logical_axis_rules(
    activation_partitioning_dims: int = 1,
    parameter_partitioning_dims: int = 1,
    additional_rules: Sequence[tuple[str, str | None]] = (),
) -> LogicalAxisRules:
    """Returns the rules that place T5 and prompts on a `(data, model)` mesh.

    Args:
      activation_partitioning_dims: 1 shards activations over `data`; 2 also shards their embed axis over `model`.
      parameter_partitioning_dims: 1 shards parameters over `model`; 2 also shards their embed axis over `data`.
      additional_rules: Rules appended to (hence weaker than) the standard ones. They win over the axes of a prompt,
        `prompt` and `prompt_embed`, and of what methods have beside it, which are replicated unless named here.

    Returns:
      Rules in order of precedence.

    Raises:
      ConfigError: If a number of dimensions is neither 1 nor 2.

    Source: T5X, `partitioning.standard_logical_axis_rules`. Differs: includes the axes of a prompt.
    """
    for name, dims in [
        ("activation_partitioning_dims", activation_partitioning_dims),
        ("parameter_partitioning_dims", parameter_partitioning_dims),
    ]:
        check_choice(name, str(dims), ("1", "2"))
    rules: list[tuple[str, str | None]] = [
        ("batch", "data"),
        ("vocab", "model"),
        ("mlp", "model"),
        ("heads", "model"),
        ("kv", None),
        ("joined_kv", "model"),  # heads and kv as one dimension
    ]
    # `embed` comes after the axes that claim `model` first: it takes only what they leave free.
    if activation_partitioning_dims == 2:
        rules.append(("embed", "model"))
    if parameter_partitioning_dims == 2:
        rules.append(("embed", "data"))
    replicated = (
        "relpos_buckets",
        "abspos_buckets",
        "length",
        "layers",
        "stack",
        "mlp_activations",
    )
    if activation_partitioning_dims == parameter_partitioning_dims == 1:
        replicated = ("embed", *replicated)
    rules += [(name, None) for name in replicated]
    rules += [(name, mesh_axis) for name, mesh_axis in additional_rules]
    named = {name for name, _ in rules}
    return (*rules, *((name, None) for name in _OF_PROMPTS if name not in named))


def platform() -> str:
    """Returns for which platform ("cpu", "gpu", "tpu") is traced: the active mesh's, else that of the default backend.

    A mesh may be of devices that the process does not have (`PjitPartitioner.on`).
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


@dataclasses.dataclass(frozen=True)
class PjitPartitioner:
    """Places parameters and batches on a `(data, model)` mesh over all devices of all processes.

    Attributes:
      num_partitions: Devices that share one replica of the model. Unit: devices. Ignored if `model_parallel_submesh`
        is given.
      model_parallel_submesh: Devices that share one replica, as a box (x, y, z, cores) of the TPU slice.
      logical_axis_rules: Pairs (logical axis, mesh axis or None); default `standard_logical_axis_rules()`.
    """

    num_partitions: int = 1
    model_parallel_submesh: tuple[int, ...] | None = None
    logical_axis_rules: LogicalAxisRules | None = None

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The mesh with axes `data` and `model`.

        Raises:
          ConfigError: If the devices cannot be split as asked; lists the numbers or submeshes that can.
        """
        return self._mesh_of(jax.devices())

    def on(self, devices: Sequence[Any]) -> "PjitPartitioner":
        """Returns this partitioner for devices that the process does not have, such as those of a described slice.

        Args:
          devices: Descriptions of devices; programs can be compiled for them.

        Raises:
          ConfigError: As `mesh`.
        """
        partitioner = dataclasses.replace(self)
        partitioner.__dict__["mesh"] = self._mesh_of(devices)
        return partitioner

    def _mesh_of(self, devices: Sequence[Any]) -> Mesh:
        """The mesh over the given devices."""
        size, count = self.num_partitions, len(devices)
        if self.model_parallel_submesh:
            grid = submesh_grid(devices, tuple(self.model_parallel_submesh))
        elif not isinstance(size, int) or size < 1 or count % size:
            fitting = [n for n in range(1, count + 1) if count % n == 0]
            raise ConfigError(
                f"num_partitions does not divide the {count} device(s)",
                got=size,
                expected=f"one of {fitting}",
                fix=f"bind partitioning.PjitPartitioner.num_partitions = {fitting[0]}, or another of these",
            )
        elif devices[0].platform == "tpu":
            # Two partitions of a 4 x 4 slice take half of one of its directions.
            shape = (count // size, size)
            grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        else:
            # Only TPU slices have a topology worth following; elsewhere the order of the devices is the layout.
            grid = np.asarray(devices).reshape(-1, size)
        # Between constraints, shardings are left to the compiler.
        return Mesh(grid, _MESH_AXES, axis_types=(AxisType.Auto, AxisType.Auto))

    @property
    def rules(self) -> LogicalAxisRules:
        """The logical axis rules in use."""
        if self.logical_axis_rules is None:
            return standard_logical_axis_rules()
        for name, mesh_axes in self.logical_axis_rules:
            for axis in (mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes or ():
                check_choice(f"the mesh axis of {name} in logical_axis_rules", axis, _MESH_AXES)
        return tuple((name, mesh_axis) for name, mesh_axis in self.logical_axis_rules)

    def num_parts(self, axis: str) -> int:
        """Returns over how many devices the rules spread a logical axis of this name, where it stands alone."""
        (mesh_axes,) = flax_partitioning.logical_to_mesh_axes((axis,), self.rules) or (None,)
        named = (mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes or ()
        return math.prod(self.mesh.shape[name] for name in named)

    @property
    def batch_sharding(self) -> NamedSharding:
        """The sharding of every batch feature: the first axis over `data`."""
        return NamedSharding(self.mesh, PartitionSpec("data"))

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of scalars and other arrays that every device holds whole."""
        return NamedSharding(self.mesh, PartitionSpec())

    def array_sharding(self, names: Sequence[str | None], shape: Sequence[int]) -> NamedSharding:
        """Returns the sharding of an array by logical axes, where an axis that does not divide is whole.

        Args:
          names: A logical axis for each of the first dimensions, or None.
          shape: The array's.
        """
        fits = [
            name is not None and size % self.num_parts(name) == 0
            for name, size in zip(names, shape, strict=False)
        ]
        kept = [name if fit else None for name, fit in zip(names, fits, strict=True)]
        spec = flax_partitioning.logical_to_mesh_axes(kept, self.rules)
        assert spec is not None
        return NamedSharding(self.mesh, spec)

    def check_batch_size(self, batch_size: int) -> None:
        """Checks that every data replica gets the same number of examples.

        Args:
          batch_size: Global batch size. Unit: examples.

        Raises:
          ConfigError: If the mesh's data axis does not divide it.
        """
        replicas = self.mesh.shape["data"]
        if batch_size < 1 or batch_size % replicas:
            above = max(1, math.ceil(batch_size / replicas)) * replicas
            raise ConfigError(
                f"BATCH_SIZE does not divide over {replicas} data replicas"
                f" ({self.mesh.size} devices / {self.mesh.shape['model']} per replica)",
                got=batch_size,
                expected=f"a positive multiple of {replicas}",
                fix=f"set BATCH_SIZE = {above}, or spread the model over more devices (num_partitions)",
            )

    def param_shardings(
        self, axes: Mapping[str, tuple[str | None, ...]], shapes: Mapping[str, Any]
    ) -> dict[str, NamedSharding]:
        """Returns the sharding of every parameter.

        Args:
          axes: Path -> logical axis names, one per dimension.
          shapes: Path -> shape, or anything with a `shape`. Same paths as `axes`.

        Returns:
          Path -> sharding, in the order of `shapes`.

        Raises:
          ConfigError: If a logical axis has no rule, or a dimension is not divisible by the devices it is spread over.
        """
        assert set(axes) == set(shapes), sorted(set(axes) ^ set(shapes))[:3]
        return {path: self._param_sharding(path, axes[path], leaf) for path, leaf in shapes.items()}

    def _param_sharding(self, path: str, names: tuple[str | None, ...], leaf: Any) -> NamedSharding:
        """Returns the sharding of one parameter, checked against its shape."""
        shape = tuple(getattr(leaf, "shape", leaf))
        assert len(names) == len(shape), (path, names, shape)
        known = {name for name, _ in self.rules}
        for name in names:
            if name is not None and name not in known:
                raise ConfigError(
                    f"Parameter {path} has a logical axis without a rule",
                    got=name,
                    expected=f"one of {sorted(known)}",
                    fix=f"add ({name!r}, None) to additional_rules of standard_logical_axis_rules",
                    name=name,
                    candidates=known,
                )
        spec = flax_partitioning.logical_to_mesh_axes(names, self.rules)
        assert spec is not None
        for dim, (size, mesh_axes) in enumerate(zip(shape, spec, strict=True)):
            named = (mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes or ()
            parts = math.prod(self.mesh.shape[name] for name in named)
            if size % parts:
                raise ConfigError(
                    f"Parameter {path} {list(shape)} cannot be spread over the devices: dimension {dim} ({names[dim]})"
                    f" is sharded over mesh axis {mesh_axes!r} of {parts} devices",
                    got=size,
                    expected=f"a multiple of {parts}",
                    fix="use fewer num_partitions (or a smaller model_parallel_submesh)",
                )
        return NamedSharding(self.mesh, spec)

    def shard_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Returns the batch as global arrays, each device holding its slice.

        Args:
          batch: Feature -> the whole global batch [B, ...] on the host, the same in every process.

        Returns:
          Feature -> global array of the same shape and dtype, sharded over `data`.
        """
        sharding = self.batch_sharding

        def to_global(array: np.ndarray) -> jax.Array:
            return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

        return {name: to_global(np.asarray(array)) for name, array in batch.items()}

    @contextlib.contextmanager
    def activate(self) -> Iterator[Mesh]:
        """Makes the mesh and the rules current, so that logical names in traced code become sharding constraints."""
        # `with self.mesh` would set the old context, which Flax no longer looks at: it would drop every constraint.
        with jax.set_mesh(self.mesh), flax_partitioning.axis_rules(self.rules):
            yield self.mesh


def submesh_grid(devices: Sequence[Any], submesh: tuple[int, ...]) -> np.ndarray:
    """Returns the devices as [data, model], each row being one `submesh`-shaped box of the hardware.

    Args:
      devices: All devices. Those of a TPU have `coords` (x, y, z) and `core_on_chip`; others only a number.
      submesh: (x, y, z, cores) of one replica of the model. Unit: devices along each direction.

    Returns:
      Object array [number of boxes, devices per box].

    Raises:
      ConfigError: If the box does not tile the hardware; lists boxes that do.

    Source: T5X, `partitioning.get_mesh`. Differs: other platforms than TPU take a submesh by its product alone.
    """
    size = math.prod(submesh)
    if not hasattr(devices[0], "coords"):
        divisors = [n for n in range(1, len(devices) + 1) if len(devices) % n == 0]
        if size not in divisors:
            _raise_submesh(
                submesh, f"the {len(devices)} device(s)", [(n, 1, 1, 1) for n in divisors]
            )
        return np.asarray(devices, dtype=object).reshape(-1, size)
    positions = {(*device.coords, device.core_on_chip): device for device in devices}
    bounds = tuple(1 + max(position[i] for position in positions) for i in range(4))
    tiles = len(submesh) == 4 and all(
        n > 0 and bound % n == 0 for n, bound in zip(submesh, bounds, strict=True)
    )
    if not tiles:
        factors = [[n for n in range(1, bound + 1) if bound % n == 0] for bound in bounds]
        fitting = sorted(
            itertools.product(*factors), key=lambda box: (abs(math.prod(box) - size), box)
        )
        _raise_submesh(submesh, f"this slice of {bounds} (x, y, z, cores)", fitting)
    hardware = np.empty(bounds, dtype=object)
    for position, device in positions.items():
        hardware[position] = device
    # [X, Y, Z, C] -> [X/x, x, Y/y, y, ...] -> [boxes..., inside a box...] -> [data, model]
    split = [part for bound, n in zip(bounds, submesh, strict=True) for part in (bound // n, n)]
    boxes_first = (*range(0, 8, 2), *range(1, 8, 2))
    return hardware.reshape(split).transpose(boxes_first).reshape(-1, size)


def _raise_submesh(
    submesh: tuple[int, ...], hardware: str, fitting: list[tuple[int, ...]]
) -> NoReturn:
    """Raises the error for a submesh that does not tile the hardware; `fitting` is best first."""
    listed = ", ".join(map(str, fitting[:_MAX_LISTED]))
    more = f" and {len(fitting) - _MAX_LISTED} more" if len(fitting) > _MAX_LISTED else ""
    raise ConfigError(
        f"model_parallel_submesh does not tile {hardware}",
        got=submesh,
        expected=f"one of {listed}{more}",
        fix=f"bind partitioning.PjitPartitioner.model_parallel_submesh = {fitting[0]}, or another of these",
    )
