"""Settings of a run, checked when they are made."""

import dataclasses
from collections.abc import Callable
from typing import Any

from afd_tf.errors import (
    InvalidType,
    boolean,
    choice,
    instance,
    integer,
    invalid,
    number,
    positive_int,
    shown,
)

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
NON_FINITE = ("stop", "skip")
_FUNCTIONS = ("load_data", "distiller", "compile")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of `afd_tf.training.train`, which describes each.

    Names of data sets, networks, methods and strategies, and what belongs together, are
    checked when they are used.

    Raises:
        InvalidValue: if a value cannot be meant.
        InvalidType: if one is of the wrong type.

    Example:
    ```python
    settings = Settings(networks=["resnet8", "resnet20"], epochs=10)
    ```
    """

    networks: Any
    dataset: str = "digits"
    method: str = "afd"
    method_options: dict | None = None
    topology: str | None = None
    source: Any = None
    source_network: str | None = None
    epochs: int = 300
    batch_size: int = 128
    seed: int = 0
    deterministic: bool = False
    data_dir: Any = None
    validation: float = 0.0
    precision: str = "float32"
    max_layers: int = 10_000
    strategy: Any = "auto"
    workers: Any = None
    task: int | None = None
    worker_timeout: float = 300
    steps_per_execution: int = 1
    evaluate_every: int = 1
    non_finite: str = "stop"
    tensorboard: bool = True
    keep: int = 3
    checkpoint_steps: int | None = None
    checkpoint_minutes: float | None = 10
    load_data: Callable | None = None
    distiller: Callable | None = None
    compile: Callable | None = None

    def __post_init__(self):
        _check_networks(self.networks)
        instance(
            "method_options",
            self.method_options,
            dict | None,
            "a dict of options, or None",
        )
        for name in (
            "epochs",
            "steps_per_execution",
            "keep",
            "evaluate_every",
            "max_layers",
        ):
            positive_int(name, getattr(self, name))
        integer("seed", self.seed, 0)
        if self.checkpoint_steps is not None:
            positive_int("checkpoint_steps", self.checkpoint_steps)
        if self.checkpoint_minutes is not None:
            number("checkpoint_minutes", self.checkpoint_minutes, positive=True)
        number("worker_timeout", self.worker_timeout, positive=True)
        choice("precision", self.precision, PRECISIONS)
        choice("non_finite", self.non_finite, NON_FINITE)
        for name in ("deterministic", "tensorboard"):
            boolean(name, getattr(self, name))
        for name in _FUNCTIONS:
            value = getattr(self, name)
            if value is not None and not callable(value):
                expected = "a callable, in a file @name without parentheses"
                raise invalid(name, expected, value, kind=InvalidType)

    def values(self):
        """Return what describes a run: dict of setting to value.

        Functions that are not set are left out: the library's own are meant.
        """
        every = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {k: v for k, v in every.items() if k not in _FUNCTIONS or v is not None}


def _check_networks(networks):
    listed = isinstance(networks, list | tuple)
    every = networks if listed else [networks]
    wrong = [n for n in every if not (listed and (isinstance(n, str) or callable(n)))]
    if wrong:
        raise invalid(
            "networks",
            "a list of names or of callables, e.g. ['resnet20', 'wrn16_2'] or "
            "[@resnet20/resnet, @wrn16_2/wide_resnet] without parentheses",
            received=shown(wrong[0]),
            kind=InvalidType,
        )
