"""Updates of Keras' SGD and Adam by one kernel per variable."""

import keras
import tensorflow as tf


def use_kernels(optimizer):
    """Let a Keras optimizer update each variable by one TensorFlow kernel.

    Keras writes an update out in about ten operations per variable. With hundreds of
    small variables, as networks with batch normalisation have, starting these
    operations costs more than computing them, and tracing them takes longer than
    tracing the networks. The kernels compute the same equations on the same optimizer
    variables:

        SGD:   m <- momentum * m - lr * g;  w <- w + m  (or + momentum * m - lr * g)
        Adam:  m <- m + (1 - b1) * (g - m);  v <- v + (1 - b2) * (g^2 - v)
               w <- w - lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + epsilon)

    Everything around the update stays Keras' own: decoupled decay, clipping, averaging
    of weights, gradient accumulation, reduction over replicas.

    Args:
        optimizer: keras.optimizers.Optimizer. Others than SGD and Adam (with its
            subclasses that share its update, such as AdamW) are left as they are, and
            so are those that accumulate gradients.
    """
    if optimizer.gradient_accumulation_steps:
        return  # Keras calls such an update with symbols as well
    for keras_class, kernel in _KERNELS.items():
        if type(optimizer).update_step is keras_class.update_step:
            kernel(optimizer)


def _sgd(optimizer):
    def update(gradient, variable, rate):
        if not optimizer.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(
                var=variable.handle, alpha=rate, delta=gradient
            )
            return
        index = optimizer._get_variable_index(variable)
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=optimizer.momentums[index].value.handle,
            lr=rate,
            grad=gradient,
            momentum=tf.constant(optimizer.momentum, gradient.dtype),
            use_nesterov=optimizer.nesterov,
        )

    _replace(optimizer, update)


def _adam(optimizer):
    if optimizer.amsgrad:
        return

    def update(gradient, variable, rate):
        index = optimizer._get_variable_index(variable)
        steps = tf.cast(optimizer.iterations.value + 1, gradient.dtype)
        beta_1 = tf.constant(optimizer.beta_1, gradient.dtype)
        beta_2 = tf.constant(optimizer.beta_2, gradient.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=optimizer._momentums[index].value.handle,
            v=optimizer._velocities[index].value.handle,
            beta1_power=beta_1**steps,
            beta2_power=beta_2**steps,
            lr=rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.constant(optimizer.epsilon, gradient.dtype),
            grad=gradient,
        )

    _replace(optimizer, update)


_KERNELS = {keras.optimizers.SGD: _sgd, keras.optimizers.Adam: _adam}


def _replace(optimizer, update):
    written_out = optimizer.update_step

    def update_step(gradient, variable, learning_rate):
        if isinstance(gradient, tf.IndexedSlices):
            written_out(gradient, variable, learning_rate)
            return
        dtype = variable.dtype
        update(tf.cast(gradient, dtype), variable, tf.cast(learning_rate, dtype))

    optimizer.update_step = update_step
