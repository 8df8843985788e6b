"""What runs must have in common to be compared, and in what else they differ.

In common: data set and how it is read, epochs, batch, precision, whether the test set
or held-out images are evaluated. All else, such as learning rates, may be chosen for
each method, but has to be told.
"""

import ast
import re

from afd_tf.text import counted, printable

# In results: the digest of the images.
DATA = "data_sha256"
_PROTOCOL = (
    "train.dataset",
    "train.epochs",
    "train.batch_size",
    "train.validation",
    "train.precision",
)
# Of what not every method has: how its settings begin, and the methods without it. The
# registry of methods is not asked, as it needs TensorFlow.
_WITHOUT_MAPS = ("vanilla", "dml", "kd", "one")
_PARTS = (
    (
        ("OnlineDistiller.temperature", "OnlineDistiller.kl_"),
        ("vanilla", "adversarial", "l1", "l2", "at", "ft"),
    ),
    (("OnlineDistiller.tap", "OnlineDistiller.feature_weight"), _WITHOUT_MAPS),
    (
        ("compile.discriminator_",),
        (
            *_WITHOUT_MAPS,
            *("l1", "l2", "at", "ft", "l1_kd", "l2_kd", "at_kd", "ft_kd"),
        ),
    ),
    (("train.topology",), ("vanilla", "kd", "one")),
    (("train.source",), ("vanilla", "dml", "one")),
)
# Methods that have the same options.
_OF_ONE_KIND = (
    ("adversarial", "afd"),
    ("l1", "l2", "at", "l1_kd", "l2_kd", "at_kd"),
    ("ft", "ft_kd"),
)
_FEATURE_STEP = ("compile.feature_", "compile.placebo", "OnlineDistiller.forward")


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


def unequal_settings(run, baseline):
    """Find in what two runs of one protocol differ, beside method and networks.

    A setting counts if both could have it: not the feature optimizer's learning rate
    against a method that has no such optimizer, nor the width of a network that one
    side does not have. Options of the method count between methods that have the same.

    Args:
        run: Run.
        baseline: Run.

    Returns:
        dict of setting to (text of the run's value, of the baseline's), None where it
        is not set.
    """
    sides = (run, baseline)
    ways = [(_idle(side), _reached(side)) for side in sides]
    left_out = {"train.method"}
    methods = {side.results["method"] for side in sides}
    if len(methods) > 1 and not any(methods <= {*kind} for kind in _OF_ONE_KIND):
        left_out.add("train.method_options")
    # Who is beside a network can be seen in the table.
    if list(run.results["networks"]) != list(baseline.results["networks"]):
        left_out.add("train.networks")
    found = {}
    for key in sorted({*run.settings, *baseline.settings} - left_out):
        values = tuple(side.settings.get(key) for side in sides)
        if values[0] != values[1] and all(_is_used(key, *way) for way in ways):
            found[key] = values
    return found


def _idle(run):
    """Return how the settings begin of which a run's method makes no use."""
    method = run.results["method"]
    found = [
        start for starts, without in _PARTS if method in without for start in starts
    ]
    if method in _WITHOUT_MAPS or _options(run).get("optimizer") == "logit":
        found += _FEATURE_STEP
    return tuple(found)


def _options(run):
    try:
        options = ast.literal_eval(run.settings.get("train.method_options", ""))
    except (ValueError, SyntaxError):  # none, or a reference
        return {}
    return options if isinstance(options, dict) else {}


def _reached(run):
    """Return what the settings in use refer to, such as `logit/SGD`."""
    idle, reached = _idle(run), set()
    while True:
        used = [v for k, v in run.settings.items() if _is_used(k, idle, reached)]
        found = set(re.findall(r"@([\w./]+)", " ".join(used)))
        if found == reached:
            return reached
        reached = found


def _is_used(key, idle, reached):
    """Whether a setting has an effect; `logit/SGD.momentum`: if `logit/SGD` is used."""
    named = key.rpartition(".")[0]
    scope, _, own = key.rpartition("/")
    return not own.startswith(idle) and (not scope or named in reached)
