"""Pretraining: layers of some methods, such as FT's paraphraser, on a frozen source."""

import keras
import tensorflow as tf

from afd_tf import losses
from afd_tf.data import position_of
from afd_tf.devices.model import DistributedModel, global_count
from afd_tf.distillation.optimizers import in_this_strategy
from afd_tf.errors import InvalidValue


def pretrain(exchange, strategy, x, epochs, optimizer, callbacks, verbose):
    """Train `exchange.pretrained` on the maps of the frozen source.

    Args:
        exchange: Exchange, with at least one such layer.
        strategy: tf.distribute.Strategy in whose scope the layers were made.
        x: data set of `(images, ...)` batches.
        epochs: int >= 1, or None for the method's.
        optimizer: keras optimizer or None.
        callbacks: keras callbacks.
        verbose: as in `fit`.

    Returns:
        keras.callbacks.History, and int, the steps that were made.
    """
    layers, feature = exchange.pretrained, exchange.method.feature
    for layer in layers:
        layer.trainable = True
    try:
        with strategy.scope():
            model = _PretrainedLayers(exchange.source, feature, layers)
            optimizer = keras.optimizers.get(optimizer or "adam")
            # XLA, Keras' own choice, is slower on a CPU.
            model.compile(in_this_strategy(optimizer), jit_compile=False)
            model.optimizer.build(model.trainable_variables)
        history = model.fit(
            x,
            epochs=epochs or feature.pretraining_epochs,
            callbacks=[_EpochOfData(x), *callbacks],
            verbose=verbose,
            shuffle=False,
        )
    finally:
        for layer in layers:
            layer.trainable = False
    return history, int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def pretraining_missing(method):
    """Return the error for training before pretraining."""
    return InvalidValue(
        f"Method '{method.name}' with a frozen source learns from a paraphraser that "
        "is trained beforehand, and this one is not. Call model.pretrain(train) before "
        "model.fit(train, ...)."
    )


def nothing_to_pretrain(method, source):
    """Return the error for pretraining where a method has none."""
    without = "" if source is not None else " without a frozen source"
    return InvalidValue(
        f"Method '{method.name}' has nothing to train beforehand{without}. Received: a "
        "call of `pretrain`. Call `fit` at once."
    )


class _PretrainedLayers(DistributedModel):
    """Layers that learn from the maps of a frozen source."""

    def __init__(self, source, feature, layers):
        super().__init__(name="pretraining")
        self._source = source
        self._feature = feature
        self.layers_to_train = layers
        self.loss_metric = keras.metrics.Mean(name="loss")
        self.built = True

    @property
    def metrics(self):
        return [self.loss_metric]

    def train_step(self, data):
        images, _, _ = keras.utils.unpack_x_y_sample_weight(data)
        (feature_map,), _ = self._source.forward(images)
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            per_example = losses.add_in_order(
                [
                    self._feature.pretraining_loss(layer, feature_map)
                    for layer in self.layers_to_train
                ]
            )
            # Optimizers sum gradients over replicas, whose shares may differ.
            loss = tf.reduce_sum(per_example) / global_count(images)
            scaled = self.optimizer.scale_loss(loss)
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        self.loss_metric.update_state(per_example)
        return self.get_metrics_result()


class _EpochOfData(keras.callbacks.Callback):
    """Tell a data set of `afd_tf.data` which epoch it is."""

    def __init__(self, dataset):
        super().__init__()
        self._position = position_of(dataset)

    def on_epoch_begin(self, epoch, logs=None):
        if self._position is not None:
            self._position.assign(epoch)
