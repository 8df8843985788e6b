"""Agreement of two networks' predictions, and calibration of one network's."""

import numpy as np


class Agreement:
    """How often two networks predict the same class, and which of them is right."""

    def __init__(self):
        self._count = 0
        self._sums = np.zeros(5)

    def update(self, first, second, labels):
        """Add a batch.

        Args:
            first: int array `(batch,)`, the classes that one network predicts.
            second: int array `(batch,)`, those of the other.
            labels: int array `(batch,)`.
        """
        a, b = first == labels, second == labels
        each = [first == second, a & b, a & ~b, ~a & b, ~a & ~b]
        self._sums += np.sum(each, axis=1)
        self._count += len(labels)

    def result(self):
        """Return fractions of the examples: dict of str to float.

        "agreement" counts equal predictions, right or wrong; the others say who is
        right and add up to 1.
        """
        names = ("agreement", "both_right", "first_only", "second_only", "both_wrong")
        fractions = (self._sums / self._count).tolist()
        return dict(zip(names, fractions, strict=True))


class Calibration:
    """Expected calibration error (Guo et al. 2017, equation 3).

        ECE = sum over bins of (examples in it / all) * |accuracy - confidence|

    Confidence is the probability of the predicted class; bins are equally wide and
    closed above:
    (0, 1/15], (1/15, 2/15], ...

    Args:
        bins: int >= 1.
    """

    def __init__(self, bins=15):
        self._bins = bins
        # Examples, sum of confidences, right predictions.
        self._sums = np.zeros((3, bins))

    def update(self, probabilities, labels):
        """Add a batch.

        Args:
            probabilities: float array `(batch, classes)`.
            labels: int array `(batch,)`.
        """
        probabilities = np.asarray(probabilities, np.float64)
        confidence = probabilities.max(axis=1)
        right = probabilities.argmax(axis=1) == labels
        index = np.ceil(confidence * self._bins).astype(int) - 1
        index = np.clip(index, 0, self._bins - 1)
        for row, weights in enumerate((np.ones_like(confidence), confidence, right)):
            self._sums[row] += np.bincount(index, weights, self._bins)

    def result(self):
        """Return a dict: "accuracy", mean "confidence" and "ece" as fractions; "bins".

        "bins" is a list of dicts of "examples" and, None in an empty bin, "confidence"
        and "accuracy".
        """
        count, confidence, right = self._sums
        total = count.sum()
        bins = [
            {
                "examples": int(n),
                "confidence": c / n if n else None,
                "accuracy": r / n if n else None,
            }
            for n, c, r in self._sums.T.tolist()
        ]
        return {
            "accuracy": float(right.sum() / total),
            "confidence": float(confidence.sum() / total),
            "ece": float(np.abs(right - confidence).sum() / total),
            "bins": bins,
        }
