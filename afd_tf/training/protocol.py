"""What runs must have in common to be compared.

Data set and how it is read, epochs, batch, precision, whether the test set or held-out
images are evaluated.
"""

from afd_tf.naming import printable
from afd_tf.training.formatting import counted

# In results: the digest of the images.
DATA = "data_sha256"
_PROTOCOL = (
    "train.dataset",
    "train.epochs",
    "train.batch_size",
    "train.validation",
    "train.precision",
)


def protocol(run):
    """Return what runs to compare must have in common: settings, and the data."""
    found = {
        key: value
        for key, value in run.settings.items()
        if key in _PROTOCOL or key.startswith("load_data.")
    }
    # Folders have no name that tells them apart; older results do not say.
    if digest := run.results.get(DATA):
        found["data"] = str(digest)[:12]
    return found


def describe(run):
    """Describe a run's protocol in words."""
    settings, results = protocol(run), run.results
    parts = [printable(results["dataset"])]
    if per_class := settings.get("load_data.per_class"):
        parts.append(f"{per_class} training images per class")
    parts.append(counted(results["epoch"], "epoch"))
    if batch := settings.get("train.batch_size"):
        parts.append(f"batches of {batch}")
    precision = settings.get("train.precision", "float32").strip("'\"")
    if precision != "float32":
        parts.append(precision)
    held_out = float(settings.get("train.validation", 0))
    if held_out:
        parts.append(f"{100 * held_out:g}% of the training images held out")
    parts.append(f"accuracy on the {'validation' if held_out else 'test'} images")
    return ", ".join(parts)


def with_data(runs, remarks):
    """Let runs that do not say which images they are of have those of their like.

    Only where there is one such set: older results do not say.

    Args:
        runs: list of Run.
        remarks: list of str, to which is added which runs they are.

    Returns:
        list of Run.
    """
    known = {}
    for run in runs:
        known.setdefault(_settings(run), set()).add(run.results.get(DATA))
    completed, silent = [], []
    for run in runs:
        digests = known[_settings(run)] - {None}
        if run.results.get(DATA) is None and len(digests) == 1:
            silent.append(str(run.path))
            results = {**run.results, DATA: next(iter(digests))}
            completed.append(run._replace(results=results))
        else:
            completed.append(run)
    if silent:
        remarks.append(
            "Without a digest of their images, taken for those of the other runs: "
            f"{', '.join(silent)}."
        )
    return completed


def _settings(run):
    return tuple(sorted((k, v) for k, v in protocol(run).items() if k != "data"))
