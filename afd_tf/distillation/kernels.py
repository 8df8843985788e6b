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

    Variables in half precision are updated as Keras does: constants close to 1 or to 0
    are lost when a kernel takes them in such a dtype.

    Args:
        optimizer: keras.optimizers.Optimizer. Others than SGD and Adam (with its
            subclasses that share its update, such as AdamW) are left as they are, and
            so are those that accumulate gradients. Once replaced, an update stays.
    """
    if optimizer.gradient_accumulation_steps:
        return  # Keras calls such an update with symbols as well
    for keras_class, kernel in _KERNELS.items():
        if _updates_as(optimizer, keras_class):
            kernel(optimizer)


def _updates_as(optimizer, keras_class):
    """Whether all that the kernels do without is as the Keras class has it."""
    methods = (
        "update_step",
        "_backend_update_step",
        "_distributed_tf_update_step",
        "assign",
        "assign_add",
        "assign_sub",
    )
    return all(
        getattr(type(optimizer), name) is getattr(keras_class, name)
        and name not in vars(optimizer)
        for name in methods
    )


def _sgd(optimizer):
    def constants(rate):
        return rate, tf.constant(optimizer.momentum, rate.dtype)

    def update(gradient, variable, rate, momentum):
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
            momentum=momentum,
            use_nesterov=optimizer.nesterov,
        )

    _replace(optimizer, constants, update)


def _adam(optimizer):
    if optimizer.amsgrad:
        return

    def constants(rate):
        steps = tf.cast(optimizer.iterations.value + 1, rate.dtype)
        beta_1 = tf.constant(optimizer.beta_1, rate.dtype)
        beta_2 = tf.constant(optimizer.beta_2, rate.dtype)
        epsilon = tf.constant(optimizer.epsilon, rate.dtype)
        return rate, beta_1, beta_2, beta_1**steps, beta_2**steps, epsilon

    def update(gradient, variable, rate, beta_1, beta_2, power_1, power_2, epsilon):
        index = optimizer._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=optimizer._momentums[index].value.handle,
            v=optimizer._velocities[index].value.handle,
            beta1_power=power_1,
            beta2_power=power_2,
            lr=rate,
            beta1=beta_1,
            beta2=beta_2,
            epsilon=epsilon,
            grad=gradient,
        )

    _replace(optimizer, constants, update)


_KERNELS = {keras.optimizers.SGD: _sgd, keras.optimizers.Adam: _adam}


def _replace(optimizer, constants, update):
    """Replace the optimizer's update of a variable.

    Args:
        optimizer: keras.optimizers.Optimizer.
        constants: function from the learning rate, a scalar tensor, to the scalar
            tensors that the updates of all variables in a step share.
        update: function of gradient, variable and these scalars.
    """
    update_all, written_out = optimizer._backend_update_step, optimizer.update_step

    def with_constants(gradients, variables, learning_rate):
        # In place of the learning rate: what goes with it to every replica. In float32
        # at least: powers of b2 near 1 lose their digits in half precision.
        double = any(variable.dtype == "float64" for variable in variables)
        rate = tf.cast(learning_rate, "float64" if double else "float32")
        update_all(gradients, variables, constants(rate))

    def update_step(gradient, variable, shared):
        half = variable.dtype.size < 4  # bytes
        if half or isinstance(gradient, tf.IndexedSlices):
            written_out(gradient, variable, shared[0])
            return
        dtype = variable.dtype
        shared = [tf.cast(scalar, dtype) for scalar in shared]
        update(tf.cast(gradient, dtype), variable, *shared)

    optimizer._backend_update_step = with_constants
    optimizer.update_step = update_step
