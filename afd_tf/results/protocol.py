"""Protocols of runs, and the other settings in which two compared runs differ.

The protocol is the data set and how it is read, epochs, batch, precision, and whether
the test set or held-out images are evaluated: runs that are compared have it in common.
All else, such as learning rates, may be chosen for each method, but has to be told.
"""

import re

from afd_tf.text import counted, printable

_PROTOCOL = (
    "train.dataset",
    "train.epochs",
    "train.batch_size",
    "train.validation",
    "train.precision",
)
# How the settings begin that belong to a part of a method, see `_parts`.
_SETTINGS = {
    "kl": ("OnlineDistiller.temperature", "OnlineDistiller.kl_"),
    "maps": ("OnlineDistiller.tap", "OnlineDistiller.feature_weight"),
    "feature_update": (
        "compile.feature_",
        "compile.placebo",
        "OnlineDistiller.forward",
    ),
    "discriminators": ("compile.discriminator_",),
    "topology": ("train.topology",),
    "source": ("train.source",),
}


def protocol(run):
    """Return what runs to compare must have in common: settings, and the data."""
    settings = {
        key: value
        for key, value in run.settings.items()
        if key in _PROTOCOL or key.startswith("load_data.")
    }
    # A folder's name does not tell which images are in it.
    return {**settings, "data": run.results["data_sha256"][:12]}


def describe(run):
    """Describe a run's protocol in words."""
    settings, results = protocol(run), run.results
    words = [printable(results["dataset"])]
    if per_class := settings.get("load_data.per_class"):
        words.append(f"{per_class} training images per class")
    words.append(counted(results["epoch"], "epoch"))
    if batch := settings.get("train.batch_size"):
        words.append(f"batches of {batch}")
    precision = settings.get("train.precision", "float32").strip("'\"")
    if precision != "float32":
        words.append(precision)
    held_out = float(settings.get("train.validation", 0))
    if held_out:
        words.append(f"{100 * held_out:g}% of the training images held out")
    words.append(f"accuracy on the {'validation' if held_out else 'test'} images")
    return ", ".join(words)


def unequal_settings(run, baseline):
    """List the settings in which two runs of one protocol differ, beside the method.

    A setting counts if it has an effect on both sides: not the feature optimizer's
    learning rate against a method that has no such optimizer, nor the width of a
    network that one side does not have. Options of the method count between methods of
    one objective.

    Args:
        run: Run.
        baseline: Run.

    Returns:
        dict of setting to (text of the run's value, of the baseline's), None where it
        is not set.
    """
    sides = (run, baseline)
    effects = [(_unused(side), _references(side)) for side in sides]
    left_out = {"train.method"}
    if not _same_options(*(side.results for side in sides)):
        left_out.add("train.method_options")
    # Which networks are beside a network can be seen in the table.
    if list(run.results["networks"]) != list(baseline.results["networks"]):
        left_out.add("train.networks")
    unequal = {}
    for key in sorted({*run.settings, *baseline.settings} - left_out):
        values = tuple(side.settings.get(key) for side in sides)
        if values[0] != values[1] and all(_is_used(key, *effect) for effect in effects):
            unequal[key] = values
    return unequal


def _same_options(results, others):
    objective = results["parts"]["objective"]
    return results["method"] == others["method"] or (
        objective is not None and objective == others["parts"]["objective"]
    )


def _parts(run):
    """Return whether a run has each part of `_SETTINGS`: dict of str to bool."""
    parts = run.results["parts"]
    return {
        **parts,
        "topology": run.peers and not parts["branches"],
        # One that it could have learned from counts, too.
        "source": parts["source"] is not None,
    }


def _unused(run):
    """Return how the settings begin that have no effect on a run: tuple of str."""
    parts = _parts(run)
    return tuple(
        start
        for part, starts in _SETTINGS.items()
        if not parts[part]
        for start in starts
    )


def _references(run):
    """Return what the settings in use refer to, such as `logit/SGD`: set of str."""
    unused, references = _unused(run), set()
    while True:
        used = [v for k, v in run.settings.items() if _is_used(k, unused, references)]
        more = set(re.findall(r"@([\w./]+)", " ".join(used)))
        if more == references:
            return references
        references = more


def _is_used(key, unused, references):
    """Whether a setting has an effect; `logit/SGD.momentum`: if `logit/SGD` is used."""
    owner = key.rpartition(".")[0]
    scope, _, own = key.rpartition("/")
    return not own.startswith(unused) and (not scope or owner in references)
