"""Small prepared sets of tensorflow-datasets, written without any download."""

import numpy as np

CLASSES = ["no", "yes", "maybe"]


def examples(count, shape, label=lambda index: index % 3):
    """Return examples whose images are told apart by their first pixel."""
    random = np.random.RandomState(count)
    every = []
    for index in range(count):
        height, width = (side or 5 + index % 3 for side in shape[:2])
        image = random.randint(0, 256, (height, width, shape[2])).astype(np.uint8)
        image[0, 0, 0] = index
        every.append({"image": image, "label": label(index)})
    return every


def prepare(
    root, name, shape, *, classes=None, supervised=True, file_format=None, **splits
):
    """Write a set of the given splits, lists of examples, into the folder `root`."""
    import tensorflow_datasets as tfds

    class Small(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.3")

        def __init__(self):
            self.name = name
            super().__init__(data_dir=root)

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=shape),
                        "label": tfds.features.ClassLabel(names=classes or CLASSES),
                    }
                ),
                supervised_keys=("image", "label") if supervised else None,
            )

        def _split_generators(self, dl_manager):
            return {name: list(enumerate(given)) for name, given in splits.items()}

        def _generate_examples(self):
            return []

    Small().download_and_prepare(file_format=file_format)
