"""All networks of a distiller compared, in one pass over a data set."""

import itertools

import numpy as np
import tensorflow as tf

from afd_tf.analysis.maps import LinearCKA, MapDistances
from afd_tf.analysis.predictions import Agreement, Calibration
from afd_tf.distillation import evaluation
from afd_tf.networks import match_spatial, smallest_size


def compare(distiller, dataset):
    """Compare the maps and the answers of a distiller's networks.

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
    names = distiller.network_names
    shapes = [tapped.map_shape for tapped in distiller.taps]
    size = smallest_size(shapes)
    pairs = list(itertools.combinations(range(len(names)), 2))
    alike = [pair for pair in pairs if len({shapes[i][2] for i in pair}) == 1]
    distances = {pair: MapDistances() for pair in alike}
    agreement = {pair: Agreement() for pair in pairs}
    calibration = {name: Calibration() for name in (*names, "ensemble")}
    cka = LinearCKA([shape[2] for shape in shapes])
    forward = _forward(distiller, size)
    examples = 0
    for images, labels in dataset:
        maps, probabilities = forward(images)
        maps = [feature_map.numpy() for feature_map in maps]
        labels = np.asarray(labels)
        examples += len(labels)
        cka.update(maps)
        for i, j in alike:
            distances[i, j].update(maps[i], maps[j])
        answers = [probabilities[name].numpy().argmax(axis=1) for name in names]
        for i, j in pairs:
            agreement[i, j].update(answers[i], answers[j], labels)
        for name, own in calibration.items():
            own.update(probabilities[name].numpy(), labels)
    if not examples:
        raise ValueError(
            "Invalid value for argument `dataset`. Expected images to compare the "
            "networks on. Received: an empty data set."
        )
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


def _forward(distiller, size):
    """Return a function from images to maps of one size and probabilities by name."""

    @tf.function(reduce_retracing=True)
    def forward(images):
        found = [tapped.forward(images) for tapped in distiller.taps]
        maps = [match_spatial(tf.cast(m, tf.float32), size) for m, _ in found]
        logits = [each for _, each in found]
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
