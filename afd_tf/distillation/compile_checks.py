"""Checks of the arguments of `compile`, and of what came after it."""

import warnings
from numbers import Integral

import keras
import tensorflow as tf

_MIRRORED = (
    tf.distribute.MirroredStrategy,
    tf.distribute.MultiWorkerMirroredStrategy,
)


def check_count(name, value):
    """Check that an argument is an int >= 1.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected an int >= 1. "
            f"Received: {name}={value!r}."
        )


def check_jit_compile(value):
    """Check that `jit_compile` is a bool or Keras' "auto".

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(value, bool) and value != "auto":
        raise ValueError(
            "Invalid value for argument `jit_compile`. Expected True, False or 'auto', "
            f"which is False. Received: jit_compile={value!r}."
        )


def check_trained(model):
    """Check that what is trainable is what it was when the model was compiled.

    Raises:
        ValueError: if a layer was frozen or unfrozen since.
    """
    owned = {id(v): v for phase in model.phases for v in phase.variables}
    trainable = {id(v): v for v in model.trainable_variables}
    different = owned.keys() ^ trainable.keys()
    changed = [v for key, v in {**owned, **trainable}.items() if key in different]
    if changed:
        what = "unfrozen" if id(changed[0]) in trainable else "frozen"
        paths = ", ".join(f"'{v.path}'" for v in changed[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise ValueError(
            f"Variables were {what} after compile(): {paths}{more}. Compile the model "
            "again."
        )


def warn_of_short_weights(variables):
    """Warn if weights have 16 bits: an optimizer's small steps are lost in them."""
    short = [v for v in variables if v.dtype in ("bfloat16", "float16")]
    if short:
        warnings.warn(
            f"{len(short)} of {len(variables)} trainable variables are "
            f"{short[0].dtype} ('{short[0].path}', ...). A step smaller than a few "
            "thousandths of a weight is rounded away there, and with it all that Adam "
            "does at the learning rates of the feature update. Build networks under "
            "the policy 'mixed_bfloat16': it computes in 16 bits and keeps weights in "
            "32.",
            stacklevel=4,
        )


def check_alias(logit_optimizer):
    """Check that one of the two names of the logit optimizer is in use.

    Raises:
        ValueError: if `logit_optimizer` is given as well.
    """
    if logit_optimizer is not None:
        raise ValueError(
            "Arguments `optimizer` and `logit_optimizer` are two names of one thing. "
            "Received both. Leave one out."
        )


def check_optimizers(arguments):
    """Check that optimizers are different objects, and do what they can do here.

    Raises:
        ValueError: if they are not.
    """
    given = {
        role: arguments[role]
        for role in ("logit_optimizer", "feature_optimizer", "discriminator_optimizer")
        if isinstance(arguments[role], keras.optimizers.Optimizer)
    }
    for role, optimizer in given.items():
        if getattr(optimizer, "inner_optimizer", optimizer).use_ema:
            raise ValueError(
                f"Invalid optimizer for argument `{role}`. Expected one without "
                "use_ema=True: Keras' fit ends by writing averages by position, into "
                "the variables of another network. Received: "
                f"{type(optimizer).__name__}(use_ema=True). Average weights in a "
                "callback, or after training."
            )
    if len({id(optimizer) for optimizer in given.values()}) < len(given):
        raise ValueError(
            f"Arguments {', '.join(f'`{role}`' for role in given)} must be different "
            "optimizer objects: one optimizer has one step count and one set of "
            "moments. Build one for each."
        )


def check_feature_every(model, every):
    """Check that an update can be left out of some steps.

    Raises:
        ValueError: if there is none, or several replicas.
    """
    if every == 1:
        return
    check_has_feature_update(model, "feature_every", every)
    strategy = model.distribute_strategy
    if strategy.num_replicas_in_sync > 1 or isinstance(strategy, _MIRRORED):
        raise ValueError(
            "Argument `feature_every` works on one device only: TensorFlow cannot "
            "reduce gradients over replicas in a step that may leave the update out. "
            f"Received: feature_every={every} under {type(strategy).__name__}. Leave "
            "it out, or build the model outside of the strategy's scope."
        )


def check_has_feature_update(model, argument, value):
    """Check that there is an update on feature maps, for an argument that is of it.

    Raises:
        ValueError: if there is none.
    """
    feature = model.method.feature
    if feature is None or feature.joins_logit_loss:
        raise ValueError(
            f"Argument `{argument}` does not apply: method '{model.method.name}' has "
            f"no update of its own on feature maps. Received: {argument}={value}. "
            "Leave it out."
        )
