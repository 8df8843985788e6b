"""What the distiller derives from its networks, and what it refuses."""

import keras

from afd_tf.networks.branches import branched

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "afd_tf trains with Keras' TensorFlow backend. Received: backend "
        f"'{keras.backend.backend()}'. Set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is imported."
    )


def check_source(method, source):
    """Check that there is a frozen source where the method needs one, and only there.

    Args:
        method: Method.
        source: what the user gave, or None.

    Raises:
        ValueError: if not; the message says how to give one.
    """
    if source is None and method.frozen_source == "required":
        raise ValueError(
            f"Method '{method.name}' learns from a network that is trained already. "
            "Received: source=None. Pass a Keras model, OnlineDistiller(networks, "
            f"'{method.name}', source=model); in a configuration name a run or a file, "
            'train.source = "runs/teacher" and train.source_network = "resnet20".'
        )
    if source is not None and method.frozen_source == "refused":
        instead = " Choose method 'kd'." if method.name == "dml" else ""
        raise ValueError(
            f"Argument `source` does not apply: method '{method.name}' learns from no "
            f"frozen network. Received: source={source!r}. Leave it out.{instead}"
        )


def check_networks(networks, method, source):
    """Return the networks as a list.

    Args:
        networks: what the user gave.
        method: Method.
        source: keras.Model or None.

    Raises:
        ValueError: if there are too few or too many, one stands twice, or two share a
            layer.
        TypeError: if an item is not a Keras model.
    """
    received = len(networks) if isinstance(networks, (list, tuple)) else networks
    wrong = "Invalid value for argument `networks`. Expected "
    if method.branches and received != 1:
        raise ValueError(
            f"{wrong}a list of one model: method '{method.name}' makes "
            f"{method.branches} branches of it. Received: {received!r}."
        )
    fewest = 1 if source is not None or method.branches else 2
    if not isinstance(received, int) or received < fewest:
        why = "it learns from `source`"
        if fewest == 2:
            why = (
                "they learn from each other; one learns from a `source`, a trained "
                "network, or by method 'one'"
            )
        raise ValueError(
            f"{wrong}a list of at least {fewest} models: {why}. Received: {received!r}."
        )
    for network in networks:
        if not isinstance(network, keras.Model):
            raise TypeError(
                "Invalid value for argument `networks`. Expected keras.Model objects. "
                f"Received: {network!r} of type {type(network).__name__}."
            )
    owners = {}
    everyone = [*networks, source] if isinstance(source, keras.Model) else networks
    for position, network in enumerate(everyone):
        for layer in network._flatten_layers():
            if isinstance(layer, keras.layers.InputLayer):
                continue
            other = owners.setdefault(id(layer), position)
            if other != position:
                what = (
                    "is the same instance as"
                    if everyone[other] is network
                    else f"shares layer '{layer.name}' with"
                )
                raise ValueError(
                    "Invalid value for argument `networks`. Expected networks without "
                    f"common layers. Received: network {position} ('{network.name}') "
                    f"{what} network {other} ('{everyone[other].name}'). Build each "
                    "network by a call of its own."
                )
    return list(networks)


def spread(networks, method, checkpointing):
    """Return the networks that train, and their common model if they are branches.

    Args:
        networks: list of keras models, as `check_networks` returns them.
        method: Method.
        checkpointing: what the user gave; not for branches.

    Returns:
        List of keras models, and Branched or None.

    Raises:
        ValueError: if the network cannot be branched.
    """
    if not method.branches:
        return networks, None
    if checkpointing:
        raise ValueError(
            f"Argument `checkpointing` does not apply: method '{method.name}' computes "
            f"branches together. Received: checkpointing={checkpointing!r}. Leave it "
            "out."
        )
    together = branched(networks[0], method.branches)
    return together.networks, together


def unique_names(networks, names):
    """Return one name per network: the given ones or the models' own, made unique.

    Raises:
        ValueError: if `names` does not fit the networks.
    """
    if names is None:
        result = []
        for network in networks:
            name, count = network.name, 1
            while name in result:
                count += 1
                name = f"{network.name}_{count}"
            result.append(name)
    else:
        result = [str(name) for name in names]
    reserved = {"ensemble", "mean", ""} & set(result)
    if len(set(result)) != len(networks) or reserved:
        raise ValueError(
            f"Invalid value for argument `names`. Expected {len(networks)} different "
            "names, none of them 'ensemble', 'mean' or empty. "
            f"Received: {result}. Pass `names=[...]`."
        )
    return result


def tap_names(layers, count, with_source):
    """Return one layer name or None per network, the frozen source's last.

    Args:
        layers: None, a layer name for all, or a list with a name or None for each.
        count: int, number of networks.
        with_source: bool, whether there is a frozen source.

    Raises:
        ValueError: if a list has another length.
    """
    expected = count + with_source
    if layers is None or isinstance(layers, str):
        return [layers] * expected
    if len(layers) != expected:
        source = ", and the source last" if with_source else ""
        raise ValueError(
            "Invalid value for argument `tap`. Expected one layer name, or a list with "
            f"one for each of the {count} networks{source}. Received: tap={layers!r}."
        )
    return list(layers)


def tap_all(networks, layers, tap):
    """Tap every network.

    Args:
        networks: list of keras models.
        layers: list, at least as long, of a layer name or None for each.
        tap: function from (network, layer name or None) to `Tapped`.

    Raises:
        ValueError: if a network cannot be tapped or does not fit the others.
    """
    taps = tuple(
        tap(n, layer)
        for n, layer in zip(networks, layers[: len(networks)], strict=True)
    )
    pairs = list(zip(networks, taps, strict=True))
    for what, attribute in (
        ("numbers of classes", "num_classes"),
        ("input shapes", "input_shape"),
    ):
        values = [(n.name, getattr(t, attribute)) for n, t in pairs]
        if len({value for _, value in values}) > 1:
            raise ValueError(
                "Invalid value for argument `networks`. Expected networks that see the "
                f"same images and classes. Received different {what}: {values}."
            )
    return taps


def check_number(argument, value, *, positive=False):
    """Return `value` as a float >= 0 (> 0 if `positive`).

    Raises:
        ValueError: if it is not.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not (0 <= number < float("inf")) or (positive and number == 0):
        raise ValueError(
            f"Invalid value for argument `{argument}`. Expected a finite number "
            f"{'> 0' if positive else '>= 0'}. Received: {argument}={value!r}."
        )
    return number
