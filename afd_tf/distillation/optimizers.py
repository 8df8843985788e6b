"""Optimizers of users: by name, made in any strategy's scope, perhaps built."""

import contextlib
import warnings
from typing import Any

import keras
import tensorflow as tf

from afd_tf.errors import InvalidType, InvalidValue, invalid, nearest

_SKIPPED = "Skipping variable loading for optimizer"
# What `compile` calls the optimizer of a phase.
ARGUMENTS = {
    "logit": "optimizer",
    "feature": "feature_optimizer",
    "discriminator": "discriminator_optimizer",
}


def get(optimizer, argument) -> Any:
    """Return an optimizer from itself or its name.

    Args:
        optimizer: keras.optimizers.Optimizer or str.
        argument: str, what the caller calls it.

    Raises:
        TypeError: if it is neither.
    """
    names = ("SGD", "Adam", "AdamW", "RMSprop", "Lion")
    # Of a dict, Keras would make what it says, and of other objects tell nothing.
    if isinstance(optimizer, str):
        with contextlib.suppress(ValueError):
            return keras.optimizers.get(optimizer)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise invalid(
            argument,
            "a keras.optimizers.Optimizer or its name",
            optimizer,
            hint=nearest(optimizer, names).strip(),
            kind=InvalidType,
        )
    return optimizer


def in_this_strategy(optimizer):
    """Return the optimizer, or one made again from its config if it is of elsewhere.

    An optimizer belongs to the strategy in whose scope it was made: only there its
    step count and learning rate have a copy on every replica. Users make theirs
    outside as well. Of these another one trains, and a learning rate is to be set on
    `model.optimizer`.

    Args:
        optimizer: keras.optimizers.Optimizer.

    Raises:
        ValueError: if it was built elsewhere and there are several replicas, or if its
            config does not hold all that it is.
    """
    strategy = tf.distribute.get_strategy()
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if all(o._distribution_strategy is strategy for o in (optimizer, inner)):
        return optimizer
    if not optimizer.built:
        return _made_again(optimizer)
    if strategy.num_replicas_in_sync > 1:
        raise InvalidValue(
            f"Optimizer '{optimizer.name}' was built outside of the strategy's scope: "
            "its moments are on one replica only. Make it in the scope, or pass one "
            "that is not built."
        )
    return optimizer


def _made_again(optimizer):
    config, kind = optimizer.get_config(), type(optimizer)
    try:
        if "inner_optimizer" in config:
            # Itself: from its config Keras makes registered classes only.
            config["inner_optimizer"] = in_this_strategy(optimizer.inner_optimizer)
            again = kind(**config)
        else:
            again = kind.from_config(config)
    except TypeError as error:
        raise _not_in_config(optimizer, str(error)) from error
    own = vars(optimizer)
    for name in own:
        if name.startswith("_exclude_from_weight_decay"):
            setattr(again, name, own[name])
    missing = [name for name in own if _differs(name, own, vars(again))]
    if missing:
        raise _not_in_config(optimizer, ", ".join(map(repr, missing)))
    return again


def _differs(name, own, other):
    if name.startswith("_self_"):  # TensorFlow's book of what is saved
        return False
    plain = isinstance(own[name], bool | int | float | str | None)
    return name not in other or (plain and own[name] != other[name])


def _not_in_config(optimizer, what):
    return InvalidValue(
        f"Optimizer '{optimizer.name}' was made outside of the model's strategy and "
        f"its config does not hold all that it takes to make it again there: {what}. "
        "Make it in the scope of the strategy."
    )


def check_built_for(optimizer, argument, variables):
    """Check that an optimizer is new, or was built for these variables.

    Raises:
        ValueError: if it was built for others.
    """
    if not optimizer.built:
        return
    own = {id(v) for v in optimizer._trainable_variables}
    if own != {id(v) for v in variables}:
        raise InvalidValue(
            f"`{argument}` has trained other variables: those of another model, "
            "or before layers were frozen. Pass a new optimizer."
        )


@contextlib.contextmanager
def state_fits(path, skip_mismatch=False):
    """Make loading an optimizer's state that does not fit an error.

    Keras warns and begins anew.

    Args:
        path: str or path, for the message.
        skip_mismatch: bool, whether that is what the user wants.

    Raises:
        ValueError: if a state does not fit.
    """
    with warnings.catch_warnings():
        if not skip_mismatch:
            warnings.filterwarnings("error", _SKIPPED)
        try:
            yield
        except ValueError as error:
            # Keras gathers what is raised while it loads.
            reason = [line for line in str(error).splitlines() if _SKIPPED in line]
            if not reason:
                raise
            raise InvalidValue(
                f"The state of an optimizer in {str(path)!r} does not fit. Compile the "
                f"model as it was compiled when it was saved. {reason[0].strip()}"
            ) from error
