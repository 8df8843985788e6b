"""How much of reading happens at once: fixed numbers, no tuning while it runs.

`tf.data` can find such numbers itself (AUTOTUNE), by a thread that sleeps ever longer
between two looks. Who deletes an iterator, as `fit` does after every epoch, waits for
that thread; TensorFlow does not always wake it, and then the wait is up to as long as
the epoch was. The thread runs unless it is forbidden, whatever numbers are given.
"""

import os

import tensorflow as tf

# Calls at once of a function of one image: the cores that this process may use.
IMAGES = (
    len(os.sched_getaffinity(0))
    if hasattr(os, "sched_getaffinity")
    else os.cpu_count() or 1
)
# Calls at once of a function of a batch, each of which takes memory for a batch.
BATCHES = min(IMAGES, 4)
# Batches that lie ready.
READY = 2


def untuned(dataset):
    """Return the data set without the thread that tunes it."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
