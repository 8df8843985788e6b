"""Description of a loaded data set."""

import dataclasses

from afd_tf.data.augmentation import Augmentation, RandomResizedCrop

IMAGE_FOLDER = "image folder"


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """Everything that defines the two pipelines `load` returned.

    Attributes:
        name: str, the data set's name ("digits", "cifar100", or the folder's own).
        description: str, where the images come from, for people.
        num_classes: int.
        class_names: tuple of `num_classes` str; label i is `class_names[i]`.
        image_shape: tuple (height, width, channels) in pixels.
        train_examples: int, images trained on (without a held-out part).
        test_examples: int, images in the second pipeline.
        evaluated_split: "test" or "validation": what the second pipeline holds.
        batch_size: int, images per batch over all replicas.
        steps_per_epoch: int, batches per epoch; the remainder of the shuffled order
            is left out, other images each epoch.
        mean: tuple of `channels` floats, the images' mean as a fraction of 255.
        std: tuple of `channels` floats, standard deviation, same unit.
        augmentation: `Augmentation` or `RandomResizedCrop`, or None where images are
            left as they are.
        seed: int, seed of order and augmentation.
        split_seed: int, seed of any stratified split that was made.
        in_memory: bool, whether the training images are held decoded in memory.
        resize: int or None, the length of the shorter side, in pixels, before the
            centre of an image is cut out; None: as small as the image's size allows.
        test_split: str or None, the split that was asked for in place of "test".
        test_fraction: float, the part of every class that is the test split where the
            data set has none.
        digests: dict of "train" and "evaluation" to a SHA-256 of the images in the two
            pipelines: their files' names and sizes (without files, their pixels) and
            their labels. Where images of tensorflow-datasets do not fit in memory, the
            checksums of the records stand for the labels; array_record has none.
    """

    name: str
    description: str
    num_classes: int
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train_examples: int
    test_examples: int
    evaluated_split: str
    batch_size: int
    steps_per_epoch: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation | RandomResizedCrop | None
    seed: int
    split_seed: int
    in_memory: bool
    resize: int | None
    test_split: str | None
    test_fraction: float
    digests: dict[str, str]

    def preprocessing(self):
        """Describe what a network trained on this must be fed and what it answers.

        Returns:
            dict that JSON can hold. Images are float32, `(pixel / 255 - mean) / std`.
            What tells which images are the test split is there to evaluate on the same.
        """
        return {
            # A folder's own name is none to load it by, and its path stays here.
            "dataset": "image_folder"
            if self.description == IMAGE_FOLDER
            else self.name,
            "input": "float32 (batch, height, width, channels), "
            "(pixel / 255 - mean) / std",
            "output": "logits (batch, classes)",
            "image_shape": list(self.image_shape),
            **({} if self.resize is None else {"resize": self.resize}),
            "mean": list(self.mean),
            "std": list(self.std),
            "class_names": list(self.class_names),
            **({} if self.test_split is None else {"test_split": self.test_split}),
            "test_fraction": self.test_fraction,
            "split_seed": self.split_seed,
        }

    def position(self, step):
        """Return (epoch, step within it) after `step` training steps.

        With `train.position.assign(*info.position(step))` the next pass continues
        exactly where a run of `step` steps stopped.

        Args:
            step: int >= 0, training steps done since the start of the run.
        """
        return divmod(int(step), self.steps_per_epoch)
