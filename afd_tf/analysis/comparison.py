"""Comparison of a distiller's networks in one pass over a data set."""

import itertools

import numpy as np
import tensorflow as tf

from afd_tf.analysis.maps import LinearCKA, MapDistances
from afd_tf.analysis.predictions import Agreement, Calibration
from afd_tf.distillation import evaluation
from afd_tf.errors import invalid
from afd_tf.networks import match_spatial, smallest_size
from afd_tf.text import as_table

_MAPS = ("l1", "l2", "cosine", "cka")
_PREDICTIONS = ("agreement", "both_right", "first_only", "second_only", "both_wrong")


def compare(distiller, dataset):
    """Compare the feature maps and the predictions of a distiller's networks.

    Every example counts once, and no more than a batch is held. Maps of different
    height and width are first brought to the smallest (see
    `afd_tf.networks.match_spatial`). Maps of different channels have no difference and
    no cosine, only a CKA.

    Args:
        distiller: `afd_tf.OnlineDistiller`; need not be compiled.
        dataset: iterable of (images `(batch, height, width, channels)`, labels
            `(batch,)`), such as the second result of `afd_tf.data.load`.

    Returns:
        dict that JSON can hold:
        "examples": int;
        "networks": what `Calibration.result` returns for each network and "ensemble";
        "pairs": list of dicts with "networks" (two names), "predictions" (what
        `Agreement.result` returns) and "maps": "cka", "size" [height, width] at which
        maps are compared, "channels" of both and, if they are equal, "l1", "l2" and
        "cosine". A CKA that is not defined is None.

    Raises:
        ValueError: if the data set is empty.
    """
    names, taps = distiller.network_names, distiller.taps
    shapes = [each.map_shape for each in taps]
    size = smallest_size(shapes)
    pairs = list(itertools.combinations(range(len(names)), 2))
    comparable = [pair for pair in pairs if len({shapes[i][2] for i in pair}) == 1]
    distances = {pair: MapDistances() for pair in comparable}
    agreement = {pair: Agreement() for pair in pairs}
    calibration = {name: Calibration() for name in (*names, "ensemble")}
    cka = LinearCKA([shape[2] for shape in shapes])
    forward = _forward(distiller, taps, size)
    examples = 0
    for images, labels in dataset:
        maps, probabilities = forward(images)
        maps = [feature_map.numpy() for feature_map in maps]
        labels = np.asarray(labels)
        examples += len(labels)
        cka.update(maps)
        for i, j in comparable:
            distances[i, j].update(maps[i], maps[j])
        classes = [probabilities[name].numpy().argmax(axis=1) for name in names]
        for i, j in pairs:
            agreement[i, j].update(classes[i], classes[j], labels)
        for name, own in calibration.items():
            own.update(probabilities[name].numpy(), labels)
    if not examples:
        expected = "images to compare the networks on"
        raise invalid("dataset", expected, received="an empty data set")
    return {
        "examples": examples,
        "networks": {name: own.result() for name, own in calibration.items()},
        "pairs": [
            {
                "networks": [names[i], names[j]],
                "maps": {
                    "size": list(size),
                    "channels": [shapes[i][2], shapes[j][2]],
                    "cka": _number(cka.result(i, j)),
                    **(distances[i, j].result() if (i, j) in distances else {}),
                },
                "predictions": agreement[i, j].result(),
            }
            for i, j in pairs
        ],
    }


def _forward(distiller, taps, size):
    """Return a function from images to maps of one size and probabilities by name."""

    @tf.function(reduce_retracing=True)
    def forward(images):
        outputs = [each.forward(images) for each in taps]
        maps = [match_spatial(tf.cast(m, tf.float32), size) for m, _ in outputs]
        logits = [z for _, z in outputs]
        if distiller.branched is not None:
            logits = distiller.logits(images)  # the last are their gate's
        probabilities = evaluation.probabilities(
            distiller.network_names, logits, distiller.ensemble
        )
        return maps, probabilities

    return forward


def _number(value):
    """Return the float, or None for NaN, which JSON has no word for."""
    return None if np.isnan(value) else value


def as_text(comparison):
    """Lay out what `compare` returned as tables.

    Args:
        comparison: dict.

    Returns:
        str, lines of at most about 90 characters; fractions in percent, but for maps.
    """
    networks = [["network", "accuracy", "confidence", "ECE"]]
    for name, values in comparison["networks"].items():
        numbers = (values[key] for key in ("accuracy", "confidence", "ece"))
        networks.append([name, *map(_percent, numbers)])
    maps = [["feature maps", "size", "channels", "L1", "L2", "cosine", "CKA"]]
    predictions = [
        ["answers (1, 2)", "agree", "both right", "only 1", "only 2", "both wrong"]
    ]
    for pair in comparison["pairs"]:
        name, own = ", ".join(pair["networks"]), pair["maps"]
        size = "x".join(map(str, own["size"]))
        channels = ", ".join(map(str, own["channels"]))
        maps.append([name, size, channels, *(_plain(own.get(key)) for key in _MAPS)])
        numbers = (pair["predictions"][key] for key in _PREDICTIONS)
        predictions.append([name, *map(_percent, numbers)])
    tables = [
        as_table(rows, right=rows[0][1:]) for rows in (networks, maps, predictions)
    ]
    return "\n\n".join([f"{comparison['examples']:,} images", *tables])


def _percent(value):
    return f"{100 * value:.2f}"


def _plain(value):
    return "-" if value is None else f"{value:.4f}"
