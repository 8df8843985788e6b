"""Sums whose order a deterministic run does not leave to the buffers at hand."""

import keras
import pytest
import tensorflow as tf
import tiny
from tensorflow.python.eager import context
from tensorflow.python.framework import config as tf_config

from afd_tf.training.experiment import environment


@pytest.fixture(autouse=True)
def optimized_as_before():
    before = tf.config.optimizer.get_experimental_options()
    yield
    on = before.get("arithmetic_optimization", True)
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": on})
    tf_config.disable_op_determinism()


def long_sums(model):
    """List the AddN of three or more in a training step, as it is executed."""
    context.context().enable_graph_collection()
    try:
        model.train_on_batch(*tiny.batch())
        graphs = context.context().export_run_metadata().function_graphs
    finally:
        context.context().disable_graph_collection()
    nodes = [n for each in graphs for n in each.post_optimization_graph.node]
    assert any(node.op == "ResourceApplyKerasMomentum" for node in nodes)
    return [n.name for n in nodes if n.op == "AddN" and n.attr["N"].i > 2]


def distiller(method, networks):
    """Return a distiller with the paper's optimizers, whose decay is coupled."""
    nets = [tiny.network(4 + 2 * (i % 2)) for i in range(networks)]
    chosen = tiny.afd() if method == "afd" else method
    model = tiny.OnlineDistiller(nets, chosen)
    model.compile()
    return model


@pytest.mark.parametrize(
    ("method", "networks"), [("afd", 2), ("afd", 3), ("dml", 3), ("ft_kd", 2)]
)
def test_a_deterministic_step_adds_in_one_order(method, networks):
    with environment(deterministic=True):
        assert long_sums(distiller(method, networks)) == []


def test_other_steps_may_add_decay_to_gradients_in_any_order():
    # What the test above looks for is there when it is not switched off.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True})
    keras.utils.set_random_seed(0)
    assert long_sums(distiller("afd", 2))
