"""Networks, their taps, discriminators and transfer layers.

A new network is a file in `architectures/` with a registered function that returns a
keras.Model giving logits, and its import below.
"""

# isort: off
# In the order in which error messages list them.
from afd_tf.networks.architectures.resnet import resnet
from afd_tf.networks.architectures.wide_resnet import wide_resnet
from afd_tf.networks.architectures.imagenet_resnet import imagenet_resnet
from afd_tf.networks.architectures.vgg import vgg
from afd_tf.networks.architectures.densenet import densenet
from afd_tf.networks.architectures.mobilenet_v2 import mobilenet_v2
from afd_tf.networks.architectures.shufflenet_v2 import shufflenet_v2
from afd_tf.networks.architectures.application import application
# isort: on

from afd_tf.networks.architectures.registry import (
    at_most_layers,
    build,
    builders,
    names,
    patterns,
    register,
)
from afd_tf.networks.branches import Branched, branched
from afd_tf.networks.classifier import Classifier, check_classifier
from afd_tf.networks.discriminator import discriminator
from afd_tf.networks.layers.normalization import with_stock_normalization
from afd_tf.networks.tap import Tapped, tap
from afd_tf.networks.transfer import (
    alignment_transfer,
    match_spatial,
    smallest_size,
    transfer_layers,
)

__all__ = [
    "Branched",
    "Classifier",
    "Tapped",
    "alignment_transfer",
    "application",
    "at_most_layers",
    "branched",
    "build",
    "builders",
    "check_classifier",
    "densenet",
    "discriminator",
    "imagenet_resnet",
    "match_spatial",
    "mobilenet_v2",
    "names",
    "patterns",
    "register",
    "resnet",
    "shufflenet_v2",
    "smallest_size",
    "tap",
    "transfer_layers",
    "vgg",
    "wide_resnet",
    "with_stock_normalization",
]
