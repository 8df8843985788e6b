"""Flags: how commands declare them, and those that several commands have."""

import functools

from absl import flags


def string(name, text, default=None):
    """Return a flag of text: a function that defines it on an `absl.flags.FlagValues`.

    Args:
        name: str.
        text: str, what `--help` says of it.
        default: its value if it is not given.
    """
    return functools.partial(flags.DEFINE_string, name, default, text)


def strings(name, text, default=None):
    """Return a flag of texts with commas between."""
    return functools.partial(flags.DEFINE_list, name, default, text)


def repeated(name, text):
    """Return a flag of text that may be given several times."""
    return functools.partial(flags.DEFINE_multi_string, name, [], text)


def integer(name, text, default=None):
    """Return a flag of a whole number."""
    return functools.partial(flags.DEFINE_integer, name, default, text)


def number(name, text, default=None):
    """Return a flag of a number."""
    return functools.partial(flags.DEFINE_float, name, default, text)


def boolean(name, text, default=None):
    """Return a flag that is on or off."""
    return functools.partial(flags.DEFINE_bool, name, default, text)


def choice(name, values, text, default=None):
    """Return a flag of one of `values`."""
    return functools.partial(flags.DEFINE_enum, name, default, values, text)


GIN_FILE = repeated(
    "gin_file",
    "What to train: a path, or a name such as pairings/cifar100_resnet20_wrn16_2. May "
    "be repeated; later files win. Default: the embedded digits with resnet8 and "
    "resnet20.",
)
GIN_PARAM = repeated(
    "gin_param",
    "One setting that wins over the files, e.g. 'train.epochs = 10'. May be repeated.",
)
DATA_DIR = string(
    "data_dir",
    "Folder of prepared data sets, or of images. Default: $AFD_TFDS_DIR, "
    "$AFD_IMAGE_FOLDER.",
)

TRUST_SOURCE = boolean(
    "trust_source",
    "Let train.source be a SavedModel, whose graph may write files.",
    default=False,
)


def as_params(values, *names):
    """Write flags that were given as gin statements on `train`.

    Args:
        values: `absl.flags.FlagValues`.
        *names: str, the flags, which have the names of the settings.

    Returns:
        list of str.
    """
    given = {name: values[name].value for name in names}
    return [f"train.{k} = {v!r}" for k, v in given.items() if v is not None]
