"""PyTorch's side of the step's benchmark against ours, value by value.

Where a convolution has stride 2, TensorFlow pads maps of even size behind, PyTorch in
front: each is the other's mirror image. So theirs gets mirrored images and kernels, and
its maps come out mirrored.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf
from benchmarks import cases, torch_afd

import afd_tf
from afd_tf.data import pipelines
from afd_tf.distillation.phases import DEFAULTS

torch = pytest.importorskip("torch", reason="needs the requirements of [bench]")

BATCH = 4


def as_theirs(maps):
    """Return maps `(batch, height, width, channels)` of ours as theirs."""
    mirrored = np.asarray(maps)[:, ::-1, ::-1]
    return torch.tensor(mirrored.transpose(0, 3, 1, 2).copy())


def as_ours(maps):
    """Return maps of theirs as ours."""
    return maps.detach().numpy().transpose(0, 2, 3, 1)[:, ::-1, ::-1]


def weights_of(module):
    """Return what a module of theirs keeps, in the order and form of our layers."""
    names = ("weight", "bias", "running_mean", "running_var")
    kept = [getattr(module, name, None) for name in names]
    kept = [w.detach().numpy() for w in kept if w is not None]
    if kept[0].ndim == 4:
        kept[0] = kept[0].transpose(2, 3, 1, 0)[::-1, ::-1]
    if kept[0].ndim == 2:
        kept[0] = kept[0].T
    return kept


def load(module, weights):
    """Set what a module of theirs keeps to the weights of a layer of ours."""
    for own, value in zip(weights_of(module), weights, strict=True):
        own[...] = value  # a view of the module's memory


def network_pairs(network, module):
    """Yield each layer of ours that has weights, with theirs."""
    blocks = 0
    for part in module.extractor:
        if isinstance(part, torch.nn.Conv2d):
            yield network.get_layer("conv"), part
        elif isinstance(part, torch.nn.BatchNorm2d):
            yield network.get_layer("norm"), part
        elif list(part.children()):
            per_stage = 3 if network.name == "resnet20" else 2
            stage, block = divmod(blocks, per_stage)
            for name, child in part.named_children():
                layer = f"stage{stage + 1}_block{block + 1}_{name}"
                yield network.get_layer(layer), child
            blocks += 1
    yield network.get_layer("logits"), module.logits


def pairs(model, theirs):
    """List each layer of our distiller that has weights, with theirs."""
    found = []
    for network, module in zip(model.networks, theirs.networks, strict=True):
        found += network_pairs(network, module)
    rest = [*model.transfers, *model.discriminators]
    for own, module in zip(
        rest, [*theirs.transfers, *theirs.discriminators], strict=True
    ):
        layers = [layer for layer in own.layers if layer.weights]
        leaves = [m for m in module.modules() if list(m.parameters(recurse=False))]
        found += zip(layers, leaves, strict=True)
    assert sum(len(layer.weights) for layer, _ in found) == sum(
        len(part.weights) for part in [*model.networks, *rest]
    )
    return found


def step_aside(_, inputs):
    return (inputs[0][:, :, 1:, 1:],)


def both(dtype=torch.float32, **options):
    """Return our distiller, PyTorch's with equal weights, and their pairs of layers.

    Args:
        dtype: of what theirs computes in, heads aside; ours has the global policy's.
        **options: of `OnlineDistiller`.
    """
    model = afd_tf.OnlineDistiller(cases.pair(), **options)
    theirs = torch_afd.build()
    bodies = [network.extractor for network in theirs.networks]
    bodies += [*theirs.transfers, *(d.blocks for d in theirs.discriminators)]
    for body in bodies:
        body.to(dtype)
    for module in theirs.networks[1].extractor:
        shortcut = getattr(module, "shortcut", None)
        if shortcut is not None and shortcut.stride == (2, 2):
            # Of two positions both take the first, which mirrored is the second one.
            shortcut.register_forward_pre_hook(step_aside)
    paired = pairs(model, theirs)
    random = np.random.default_rng(1)
    for layer, module in paired:
        if isinstance(module, torch.nn.BatchNorm2d):  # not ones and zeros
            layer.gamma.assign(random.uniform(0.5, 1.5, layer.gamma.shape))
            layer.beta.assign(random.normal(0.0, 0.2, layer.beta.shape))
        load(module, layer.get_weights())
    return model, theirs, paired


def data(seed=0):
    """Return images `(4, 32, 32, 3)` and labels `(4,)`."""
    random = np.random.default_rng(seed)
    images = random.normal(size=(BATCH, *cases.SHAPE)).astype("float32")
    return images, random.integers(0, cases.CLASSES, BATCH)


def test_maps_and_logits_in_training_are_the_same():
    model, theirs, _ = both()
    images, _ = data()
    maps = theirs.maps(as_theirs(images))
    for tap, module, their_map in zip(model.taps, theirs.networks, maps, strict=True):
        own_map, own_logits = tap.forward(images, training=True)
        np.testing.assert_allclose(as_ours(their_map), own_map, rtol=1e-3, atol=1e-4)
        logits = module.head(their_map).detach()
        np.testing.assert_allclose(logits, own_logits, rtol=1e-3, atol=1e-4)


def test_losses_of_the_same_maps_are_the_same():
    model, theirs, _ = both()
    discriminators = model.discriminators
    labels = data()[1]
    random = np.random.default_rng(0)
    maps = [random.normal(size=(BATCH, 8, 8, c)).astype("float32") for c in (64, 128)]
    logits = [
        n.get_layer("logits")(h.mean((1, 2)))
        for n, h in zip(model.networks, maps, strict=True)
    ]
    e1 = sum(
        tf.reduce_mean(
            afd_tf.losses.cross_entropy(labels, logits[k])
            + afd_tf.losses.kl_divergence(logits[k - 1], logits[k], 3.0)
        )
        for k in (0, 1)
    )
    transferred = [t(h) for t, h in zip(model.transfers, maps, strict=True)]
    real = [discriminators[k](transferred[k - 1], training=True) for k in (0, 1)]
    own = [discriminators[k](transferred[k], training=True) for k in (0, 1)]
    e2 = sum(tf.reduce_mean((1 - r) ** 2) for r in real)
    e2 += sum(tf.reduce_mean(o**2) for o in own)
    e3 = sum(tf.reduce_mean((1 - o) ** 2) for o in own)

    with torch.no_grad():
        their_maps = [as_theirs(h) for h in maps]
        found = theirs.transferred(their_maps)
        their_e1 = theirs.logit_loss(their_maps, torch.tensor(labels))
        np.testing.assert_allclose(float(their_e1), e1, rtol=1e-5)
        for ours, others in zip(transferred, found, strict=True):
            np.testing.assert_allclose(as_ours(others), ours, atol=1e-5)
        np.testing.assert_allclose(
            float(theirs.discriminator_loss(found)), e2, rtol=1e-4
        )
        np.testing.assert_allclose(float(theirs.generator_loss(found)), e3, rtol=1e-4)


def test_optimizers_are_the_same():
    model, theirs = afd_tf.OnlineDistiller(cases.pair()), torch_afd.build()
    model.compile(total_steps=1)
    decays = dict(zip(DEFAULTS, (1e-4, 0.1, 0.1), strict=True))
    for phase, optimizer in zip(
        model.phases, (theirs.logit, theirs.feature, theirs.discriminator), strict=True
    ):
        (group,) = optimizer.param_groups
        assert (phase.decay.kind, phase.decay.amount) == (
            "coupled",
            group["weight_decay"],
        )
        assert phase.decay.amount == decays[phase.role]
        assert phase.decay.normalization
        assert phase.decay.bias
        assert phase.base_learning_rate == pytest.approx(group["lr"])
        assert len(phase.variables) == len(group["params"])
        own = phase.inner_optimizer
        if phase.role == "logit":
            expected = {"momentum": own.momentum, "nesterov": own.nesterov}
            assert group["dampening"] == 0
        else:
            expected = {"betas": (own.beta_1, own.beta_2), "eps": own.epsilon}
            expected["amsgrad"] = own.amsgrad
        assert {name: group[name] for name in expected} == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("forward", "version"), [("fresh", "fresh_step"), ("shared", "shared_step")]
)
def test_all_weights_after_steps_are_the_same(forward, version):
    # In double precision, heads aside: in a single one, some activation is so near to
    # 0 that the two sides do not agree on its sign, nor on the gradients below it.
    keras.config.set_dtype_policy("float64")
    model, theirs, paired = both(torch.float64, forward=forward)
    # With their small epsilon, Adam's first update is the gradient's sign. A large one
    # shows the gradient itself, and equal rates show what each update does.
    rate, epsilon = 0.01, 0.01
    model.compile(
        keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        feature_optimizer=keras.optimizers.Adam(rate, epsilon=epsilon),
        discriminator_optimizer=keras.optimizers.Adam(rate, epsilon=epsilon),
        total_steps=1000,
    )
    theirs.logit.param_groups[0]["lr"] = rate
    for step in (1, 2):
        images, labels = data(step)
        for optimizer in (theirs.feature, theirs.discriminator):
            # TensorFlow adds it before it corrects the bias of the second moment.
            theirs_own = epsilon / (1 - 0.999**step) ** 0.5
            optimizer.param_groups[0].update(lr=rate, eps=theirs_own)
        before = [layer.get_weights() for layer, _ in paired]
        logs = model.train_on_batch(images, labels, return_dict=True)
        loss = getattr(theirs, version)(
            as_theirs(images).double(), torch.tensor(labels)
        )
        # Ours is the mean over networks.
        assert float(loss) == pytest.approx(2 * logs["loss"], rel=1e-5)
        for (layer, module), old in zip(paired, before, strict=True):
            after = zip(old, layer.get_weights(), weights_of(module), strict=True)
            for weight, ours, others in after:
                # Relative to what was done, which is little beside the weights.
                tolerance = 1e-3 * np.abs(ours - weight).max()
                assert tolerance > 0
                np.testing.assert_allclose(others, ours, rtol=0, atol=tolerance)


@pytest.mark.slow
def test_theirs_has_a_thread_for_every_processor_as_ours_has(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    worker = torch_afd.Steps("shared", "bfloat16", batch_size=2)
    assert worker.threads == pipelines.IMAGES
    assert worker() > 0
    worker.close()
