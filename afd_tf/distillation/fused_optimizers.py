"""Keras' SGD and Adam with one TensorFlow kernel per variable: the default optimizers.

Keras writes an update out in about ten operations per variable. With hundreds of small
variables, as networks with batch normalisation have, starting these operations costs
more than computing them, and tracing them takes longer than tracing the networks. The
kernels compute the same equations on the same optimizer variables; decoupled decay,
clipping, averaging of weights, accumulation and reduction over replicas stay Keras'.
"""

import warnings
from collections.abc import Callable

import keras
import tensorflow as tf


class _Fused(keras.optimizers.Optimizer):
    """An optimizer whose update of a variable is one kernel.

    Variables in half precision are updated as Keras does: constants close to 1 or to 0
    are lost when a kernel takes them in such a dtype. So are all variables where
    gradients are accumulated: Keras calls such an update with symbols as well.
    """

    _scalars: Callable
    _apply_kernel: Callable

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        if not self.gradient_accumulation_steps and self._has_kernel():
            # In place of the learning rate: what goes with it to every replica. In
            # float32 at least: powers of b2 near 1 lose digits in half precision.
            double = any(v.dtype == "float64" for v in trainable_variables)
            rate = tf.cast(learning_rate, "float64" if double else "float32")
            learning_rate = self._scalars(rate)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def update_step(self, gradient, variable, learning_rate):
        if not isinstance(learning_rate, tuple):
            super().update_step(gradient, variable, learning_rate)
        elif variable.dtype.size < 4 or isinstance(gradient, tf.IndexedSlices):  # bytes
            super().update_step(gradient, variable, learning_rate[0])
        else:
            dtype = variable.dtype
            scalars = [tf.cast(scalar, dtype) for scalar in learning_rate]
            self._apply_kernel(tf.cast(gradient, dtype), variable, *scalars)

    def _has_kernel(self) -> bool:
        return True

    def load_own_variables(self, store):
        with warnings.catch_warnings():
            # What does not fit, Keras leaves out: moments would begin anew.
            warnings.filterwarnings("error", "Skipping variable loading")
            super().load_own_variables(store)


@keras.saving.register_keras_serializable(package="afd_tf")
class SGD(_Fused, keras.optimizers.SGD):
    """`keras.optimizers.SGD`, with its arguments, by one kernel per variable.

    `m <- momentum * m - lr * g;  w <- w + m`, with Nesterov
    `w <- w + momentum * m - lr * g`.
    """

    def _scalars(self, rate):
        return rate, tf.constant(self.momentum, rate.dtype)

    def _apply_kernel(self, gradient, variable, rate, momentum):
        if not self.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(
                var=variable.handle, alpha=rate, delta=gradient
            )
            return
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[index].value.handle,
            lr=rate,
            grad=gradient,
            momentum=momentum,
            use_nesterov=self.nesterov,
        )


@keras.saving.register_keras_serializable(package="afd_tf")
class Adam(_Fused, keras.optimizers.Adam):
    """`keras.optimizers.Adam`, with its arguments, by one kernel per variable.

    `m <- m + (1 - b1) * (g - m);  v <- v + (1 - b2) * (g^2 - v)`
    `w <- w - lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon)`
    """

    def _has_kernel(self):
        return not self.amsgrad

    def _scalars(self, rate):
        steps = tf.cast(self.iterations.value + 1, rate.dtype)
        beta_1 = tf.constant(self.beta_1, rate.dtype)
        beta_2 = tf.constant(self.beta_2, rate.dtype)
        epsilon = tf.constant(self.epsilon, rate.dtype)
        return rate, beta_1, beta_2, beta_1**steps, beta_2**steps, epsilon

    def _apply_kernel(
        self, gradient, variable, rate, beta_1, beta_2, power_1, power_2, epsilon
    ):
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=power_1,
            beta2_power=power_2,
            lr=rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=epsilon,
            grad=gradient,
        )
