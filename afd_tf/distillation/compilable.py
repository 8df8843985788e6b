"""A model of several networks that `compile` tells how to train."""

import keras
from keras import ops

from afd_tf.distillation import compile_checks, compile_options, evaluation, fitting


class Compilable(fitting.Fitting):
    """What a distiller does with the arguments of `compile`: steps and metrics."""

    _compiled_parts = None

    @property
    def phases(self):
        """The compiled updates, or None before `compile`."""
        return self._compiled_parts and self._compiled_parts.step.phases

    def compile(
        self,
        logit_optimizer=None,
        feature_optimizer=None,
        discriminator_optimizer=None,
        loss=None,
        *,
        optimizer=None,
        logit_schedule="auto",
        feature_schedule="auto",
        discriminator_schedule="auto",
        weight_decay="coupled",
        logit_weight_decay=1e-4,
        feature_weight_decay=1e-1,
        discriminator_weight_decay=1e-1,
        decay_normalization=True,
        decay_bias=True,
        label_smoothing=0.0,
        metrics=None,
        feature_every=1,
        placebo=False,
        gradient_ratio_every=50,
        total_steps=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile=False,
    ):
        """Set how to train; without arguments, as the paper does.

        Args:
            logit_optimizer: keras optimizer for E1. Default: SGD 0.1, momentum 0.9.
            optimizer: what Keras calls it; the same as `logit_optimizer`.
            feature_optimizer: keras optimizer for E3 (extractors and transfer layers).
                Default: Adam 2e-5.
            discriminator_optimizer: keras optimizer for E2. Default: Adam 2e-5.
            loss: keras.losses.Loss from logits, its name, or a function
                `(labels, logits) -> (batch,)`. Default: cross-entropy with integer
                labels `(batch,)` or class probabilities `(batch, classes)`.
            logit_schedule: name or object of `afd_tf.schedules`, or None for a constant
                learning rate. "auto": x0.1 at 1/2 and 3/4 of training with the default
                optimizer, None with one of yours.
            feature_schedule: likewise; "auto" is x0.1 at 1/4 and 1/2.
            discriminator_schedule: as `feature_schedule`.
            weight_decay: "coupled" (L2 in the gradients), "decoupled" (Keras' own) or
                "none".
            logit_weight_decay: float >= 0. Default 1e-4.
            feature_weight_decay: float >= 0. Default 0.1.
            discriminator_weight_decay: float >= 0. Default 0.1.
            decay_normalization: bool, whether gammas and betas decay. Default True.
            decay_bias: bool, whether biases decay. Default True.
            label_smoothing: float in [0, 1), for the default loss.
            metrics: list of keras metrics, computed for each network's probabilities as
                `{network}_{metric}`.
            feature_every: int n, make the feature-map-based update in every n-th step
                only, from the first on, and on one device. The metrics of an epoch
                without such a step are 0. Default 1, as the paper does.
            placebo: bool, replace each variable's gradient of the feature-map-based
                loss by Gaussian noise of the same norm; weight decay stays. A control:
                what it gains is not gained by the loss. An int >= 1 is the seed of the
                noise, which is otherwise drawn from Keras' own. Default False.
            gradient_ratio_every: int, steps between two computations of
                `{network}_gradient_ratio`. Default 50.
            total_steps: int, length of training for the schedules. Default None: each
                call of `fit` is a training of its `epochs`.
            run_eagerly: bool, as in Keras.
            steps_per_execution: int, as in Keras.
            jit_compile: bool, use XLA. Default False: on a CPU it is slower.

        Raises:
            ValueError: if arguments contradict each other; the message says which.
        """
        arguments = {
            k: v for k, v in locals().items() if k in compile_options.ARGUMENTS
        }
        compile_checks.check_count("steps_per_execution", steps_per_execution)
        compile_checks.check_jit_compile(jit_compile)
        if optimizer is not None:
            compile_checks.check_alias(logit_optimizer)
            arguments["logit_optimizer"] = optimizer
        with self.distribute_strategy.scope():
            # A variable of the model: a resumed run goes on with its noise.
            self.placebo_seed = compile_options.placebo_seed(placebo)
            parts = compile_options.compile_parts(self, arguments)
            super().compile(
                optimizer=parts.step.phases.logit.optimizer,
                run_eagerly=run_eagerly,
                steps_per_execution=steps_per_execution,
                jit_compile=jit_compile is True,
                auto_scale_loss=False,
            )
            # Attributes of their own, so that Keras saves all three with the model.
            feature, judge = parts.step.phases.feature, parts.step.phases.discriminator
            self.feature_optimizer = feature and feature.optimizer
            self.discriminator_optimizer = judge and judge.optimizer
            self._compiled_parts = parts
            # An optimizer that goes on from an earlier compile knows how far it is.
            done = parts.step.phases.logit.inner_optimizer._iterations
            self.trained_steps.assign(ops.cast(done, "int64"))
            self.first_step.assign(0)
            self.total_steps.assign(total_steps or 0)

    def get_compile_config(self):
        if not self.compiled:
            return {}
        config = compile_options.serialize(self._compiled_parts)
        for name in ("run_eagerly", "steps_per_execution", "jit_compile"):
            config[name] = getattr(self, name)
        return config

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))

    def train_step(self, data):
        images, labels, weight = keras.utils.unpack_x_y_sample_weight(data)
        images = evaluation.check_images(images, self.taps[0].input_shape)
        labels = evaluation.check_labels(labels, self.num_classes)
        weight = evaluation.check_weight(weight)
        evaluation.warn_of_raw_pixels(images, self.networks)
        parts = self._compiled_parts
        # Of our own: optimizers do not count a step that overflows, nor, where they
        # accumulate gradients, each one.
        step = self.trained_steps.value
        for phase in parts.step.phases:
            phase.set_learning_rate(step - self.first_step, self.total_steps)
        logits, values = parts.step(images, labels, weight, parts.now(step))
        self.trained_steps.assign_add(1)
        parts.update_train(labels, logits, values, self.ensemble)
        return self.get_metrics_result()

    def make_train_function(self, force=False):
        compile_checks.check_trained(self)
        return super().make_train_function(force)

    def test_step(self, data):
        images, labels, weight = keras.utils.unpack_x_y_sample_weight(data)
        images = evaluation.check_images(images, self.taps[0].input_shape)
        labels = evaluation.check_labels(labels, self.num_classes)
        weight = evaluation.check_weight(weight)
        logits = evaluation.all_logits(self.logits, images)
        self._compiled_parts.update_test(labels, logits, weight, self.ensemble)
        return self.get_metrics_result()

    @property
    def metrics(self):
        parts = self._compiled_parts
        if parts is None:
            return []
        own = parts.test_metrics if self.evaluating else parts.train_metrics
        return [own, *(metric for each in parts.user_metrics for metric in each)]

    @property
    def length_is_fixed(self):
        """Whether `compile` was told the total number of steps."""
        return self._compiled_parts.arguments["total_steps"] is not None
