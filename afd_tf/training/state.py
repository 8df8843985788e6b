"""State of training: values by name of everything that a step changes."""

import functools
import re

import numpy as np
import tensorflow as tf

from afd_tf.devices.model import first_replica, over_workers, total
from afd_tf.errors import InvalidValue

NETWORK = "network"
METRICS = "metrics/"
_COUNTER = re.compile(r"_[0-9]+(?=[/_]|$)")
_OPTIMIZERS = ("optimizer", "feature_optimizer", "discriminator_optimizer")
_REPLICAS = "replicas"


class State:
    """Read and write a distiller's complete state.

    That is every variable of networks, discriminators, transfer layers (seeds of random
    layers included), of the optimizers (slots, learning rates, step counts) and of the
    metrics, which run over the steps of an epoch. A frozen source never changes, so
    that its variables are left where it came from.

    A variable is known by its part, its place in it and its path, e.g.
    `network/resnet20/3/conv/kernel`. What differs from one replica to another, such as
    moving statistics, has an entry for each, the second ending in `@1`.

    Args:
        distiller: a compiled `OnlineDistiller`.
    """

    def __init__(self, distiller):
        self._strategy = distiller.distribute_strategy
        self._first = first_replica(self._strategy)
        self._variables = {
            f"{part}/{name}": variable
            for part, variables in _parts(distiller).items()
            for name, variable in by_place(variables).items()
        }
        self._copies = {
            name: list(getattr(variable, "values", [variable]))
            for name, variable in self._variables.items()
        }

    def read(self, only=""):
        """Return the values of this moment; later steps do not change them.

        Args:
            only: str, beginning of the names wanted.

        Returns:
            Dict from name to tensor; of the replicas of this process.
        """
        values = {
            _key(name, index): copy.read_value()
            for name, copies in self._copies.items()
            if name.startswith(only)
            for index, copy in enumerate(copies)
        }
        replicas = max(map(len, self._copies.values()))
        return {**values, _REPLICAS: tf.constant(replicas)}

    def gather(self, only=""):
        """Return what `read` does, of the replicas of all workers.

        Every worker must call it at the same point.
        """
        values = self.read(only)
        if over_workers(self._strategy):
            own = {n: c for n, c in self._copies.items() if n.startswith(only)}
            differing = {
                name: copies
                for name, copies in own.items()
                if _may_differ(name, self._variables[name])
            }
            values = {name: values[name] for name in own}
            values |= self._of_all_replicas(differing)
            values[_REPLICAS] = tf.constant(self._strategy.num_replicas_in_sync)
        return values

    def _of_all_replicas(self, differing):
        """Collect variables that replicas have of their own, in one sum per dtype."""
        values = {}
        for dtype in {copies[0].dtype for copies in differing.values()}:
            names = [n for n, copies in differing.items() if copies[0].dtype == dtype]
            replicas = self._strategy.num_replicas_in_sync
            tables = []
            for local in range(len(self._strategy.extended.worker_devices)):
                row = tf.concat(
                    [tf.reshape(differing[n][local].read_value(), [-1]) for n in names],
                    axis=0,
                )
                # Its own row of a table that is zero elsewhere.
                above = self._first + local
                tables.append(
                    tf.pad(row[None], [[above, replicas - above - 1], [0, 0]])
                )
            table = total(self._strategy, tables)
            shapes = [differing[n][0].shape for n in names]
            parts = tf.split(table, [s.num_elements() for s in shapes], axis=1)
            for name, shape, part in zip(names, shapes, parts, strict=True):
                for replica in range(replicas):
                    values[_key(name, replica)] = tf.reshape(part[replica], shape)
        return values

    def put_back(self, values):
        """Set every variable to what `read` returned in this process."""
        for name, copies in self._copies.items():
            for index, copy in enumerate(copies):
                copy.assign(values[_key(name, index)])

    def finite(self):
        """Return whether no variable but metrics holds NaN or infinity, a bool."""
        return bool(self._all_finite())

    @functools.cached_property
    def _all_finite(self):
        floats = [
            copy
            for name, copies in self._copies.items()
            if not name.startswith(METRICS)
            for copy in copies
            if copy.dtype.is_floating
        ]
        return tf.function(
            lambda: tf.reduce_all(
                [tf.reduce_all(tf.math.is_finite(variable)) for variable in floats]
            )
        )

    def write(self, values, only=""):
        """Set every variable, or none if one of the values does not fit.

        Args:
            values: dict from name to array, what `read` and `compact` returned; of as
                many replicas as there are or of another number.
            only: str, beginning of the names to set.

        Raises:
            InvalidValue: if names, shapes or types are not those of this distiller.
        """
        check_fits(values, self._variables)
        saved = int(values[_REPLICAS])
        for name, copies in self._copies.items():
            if name.startswith(only):
                variable = self._variables[name]
                every = [values.get(_key(name, i), values[name]) for i in range(saved)]
                replicated = isinstance(variable, tf.distribute.DistributedValues)
                first = self._first if replicated else 0
                wanted = self._strategy.num_replicas_in_sync if replicated else 1
                if wanted != saved:
                    every = _redistribute(every, wanted, _adds_up(variable))
                own = every[first : first + len(copies)]
                for copy, value in zip(copies, own, strict=True):
                    copy.assign(value)


def compact(values):
    """Turn what `State.read` returned into arrays, replicas' equal copies left out."""
    arrays = {name: value.numpy() for name, value in values.items()}
    return {
        name: array
        for name, array in arrays.items()
        if "@" not in name
        or array.tobytes() != arrays[name.rpartition("@")[0]].tobytes()
    }


def not_finite(values):
    """Return the name of a value with a NaN or infinity in it, or None.

    Args:
        values: dict from name to array; metrics may be what they like.
    """
    for name, value in values.items():
        if name.startswith(METRICS) or np.issubdtype(value.dtype, np.integer):
            continue
        if value.dtype.kind not in "SUOb" and not np.isfinite(value).all():
            return name
    return None


def by_place(variables):
    """Name variables by place and path, such as `3/conv/kernel`.

    The numbers that Keras appends to repeated names are left out: they count what was
    built before in the same process.

    Args:
        variables: list of keras Variables.

    Returns:
        Dict from name to `tf.Variable`.
    """
    return {
        f"{place}/{_COUNTER.sub('', variable.path)}": variable.value
        for place, variable in enumerate(variables)
    }


def write_all(values, variables):
    """Set variables that are no replicas, or none of them if a value does not fit.

    Args:
        values: dict from name to array.
        variables: dict from name to `tf.Variable`.

    Raises:
        InvalidValue: if names, shapes or types differ.
    """
    check_fits(values, variables)
    for name, variable in variables.items():
        variable.assign(values[name])


def check_fits(values, variables):
    """Check that values are those of variables.

    Args:
        values: dict from name to array; names that end in `@1`, ... do not count.
        variables: dict from name to `tf.Variable`.

    Raises:
        InvalidValue: if a name, a shape or a type differs.
    """
    saved = {name for name in values if "@" not in name} - {_REPLICAS}
    different = sorted(saved ^ variables.keys())
    if different:
        whose = "is not in it" if different[0] in variables else "is not configured"
        raise InvalidValue(f"'{different[0]}' {whose}")
    for name, variable in variables.items():
        array = values[name]
        expected = (tuple(variable.shape), variable.dtype.as_numpy_dtype)
        if (array.shape, array.dtype) != expected:
            raise InvalidValue(
                f"'{name}' has shape {array.shape} of {array.dtype} in it and "
                f"{expected[0]} of {np.dtype(expected[1])} as configured"
            )


def _parts(distiller):
    """Collect the variables: dict of part to list."""
    parts = {
        f"{NETWORK}/{name}": network.variables
        for name, network in zip(
            distiller.network_names, distiller.networks, strict=True
        )
    }
    for kind in ("discriminator", "transfer"):
        for index, layer in enumerate(getattr(distiller, f"{kind}s")):
            parts[f"{kind}/{index}"] = layer.variables if layer is not None else []
    for role in _OPTIMIZERS:
        optimizer = getattr(distiller, role, None)
        parts[role] = optimizer.variables if optimizer is not None else []
    parts[METRICS.strip("/")] = distiller.metrics_variables
    seen = {id(variable) for variables in parts.values() for variable in variables}
    if distiller.source is not None:
        seen.update(id(variable) for variable in distiller.source.variables)
    parts["distiller"] = [v for v in distiller.variables if id(v) not in seen]
    return parts


def _key(name, replica):
    return f"{name}@{replica}" if replica else name


def _may_differ(name, variable):
    """Whether replicas may have values of their own: metrics, moving statistics.

    Integers, such as counters and seeds, take the same steps everywhere.
    """
    if not isinstance(variable, tf.distribute.DistributedValues):
        return False
    if variable.synchronization == tf.VariableSynchronization.ON_READ:
        return True
    owned = variable.trainable or name.startswith(_OPTIMIZERS)
    return variable.dtype.is_floating and not owned


def _adds_up(variable):
    """Whether a variable's value is the sum over replicas, as metrics are."""
    return variable.aggregation == tf.VariableAggregation.SUM


def _redistribute(values, replicas, adds_up):
    """Return the values of another number of replicas."""
    if not adds_up:
        return values[:1] * replicas
    total = np.sum(values, axis=0, dtype=values[0].dtype)
    return [total, *[np.zeros_like(total)] * (replicas - 1)]
