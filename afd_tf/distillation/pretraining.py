"""What some methods train before the networks: layers that look at a frozen source."""

import keras
import tensorflow as tf

from afd_tf import losses
from afd_tf.devices.multi_worker import MultiWorkerModel, examples_everywhere, own_rows
from afd_tf.distillation.compilable import Compilable
from afd_tf.distillation.exchange import beforehand
from afd_tf.distillation.optimizers import in_this_strategy


class Pretraining(Compilable):
    """A model whose method may have layers to train beforehand.

    Attributes:
        pretrained_steps: int64 variable, steps that were made beforehand; None where
            there is nothing to train beforehand.
    """

    pretrained_steps = None

    def _count_pretraining(self, counter):
        if self._beforehand():
            self.pretrained_steps = counter("pretrained_steps")

    def _beforehand(self):
        wired = self._wiring
        return beforehand(self.method.feature, wired.transfers, wired.sources)

    @property
    def needs_pretraining(self):
        """Whether `pretrain` has to be called before `fit`."""
        steps = self.pretrained_steps
        return steps is not None and not int(keras.ops.convert_to_numpy(steps))

    def pretrain(self, x, epochs=None, optimizer=None, callbacks=(), verbose="auto"):
        """Train what the method needs beforehand: FT's paraphraser on a frozen source.

        Networks, the source and optimizers are not touched.

        Args:
            x: data set of `(images, ...)` batches; the rest of a batch is not used.
            epochs: int >= 1. Default None: the method's, see `afd_tf.methods.Factor`.
            optimizer: keras optimizer. Default None: Adam 1e-3.
            callbacks: keras callbacks.
            verbose: as in `fit`.

        Returns:
            keras.callbacks.History with "loss", the reconstruction error per element.

        Raises:
            ValueError: if the method has nothing to train beforehand.
        """
        layers = self._beforehand()
        if not layers:
            raise ValueError(
                f"Method '{self.method.name}' has nothing to train beforehand"
                f"{'' if self.source is not None else ' without a frozen source'}. "
                "Received: a call of `pretrain`. Call `fit` at once."
            )
        for layer in layers:
            layer.trainable = True
        try:
            with self.distribute_strategy.scope():
                model = _Beforehand(self._wiring.source, self.method.feature, layers)
                optimizer = keras.optimizers.get(optimizer or "adam")
                # XLA, Keras' own choice, is slower on a CPU.
                model.compile(in_this_strategy(optimizer), jit_compile=False)
                model.optimizer.build(model.trainable_variables)
            history = model.fit(
                own_rows(self.distribute_strategy, x),
                epochs=epochs or self.method.feature.pretraining_epochs,
                callbacks=[_Position(x), *callbacks],
                verbose=verbose,
                shuffle=False,
            )
        finally:
            for layer in layers:
                layer.trainable = False
        before, made = map(
            keras.ops.convert_to_numpy,
            (self.pretrained_steps, model.optimizer.iterations),
        )
        self.pretrained_steps.assign(int(before) + int(made))
        return history

    def make_train_function(self, force=False):
        if self.needs_pretraining:
            raise ValueError(
                f"Method '{self.method.name}' with a frozen source learns from a "
                "paraphraser that is trained beforehand, and this one is not. Call "
                "model.pretrain(train) before model.fit(train, ...)."
            )
        return super().make_train_function(force)


class _Beforehand(MultiWorkerModel):
    """Layers that learn from the maps of a frozen source."""

    def __init__(self, source, feature, layers):
        super().__init__(name="beforehand")
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
            loss = tf.reduce_sum(per_example) / examples_everywhere(images)
            scaled = self.optimizer.scale_loss(loss)
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        self.loss_metric.update_state(per_example)
        return self.get_metrics_result()


class _Position(keras.callbacks.Callback):
    """Tell a data set of `afd_tf.data` which epoch it is."""

    def __init__(self, dataset):
        super().__init__()
        self._position = getattr(dataset, "position", None)

    def on_epoch_begin(self, epoch, logs=None):
        if self._position is not None:
            self._position.assign(epoch)
