"""Image files and tensors: decoded by content, brought to one size."""

import dataclasses
import math
from typing import cast

import numpy as np
import tensorflow as tf

from afd_tf.errors import InvalidValue

# Enough for any photograph; a small file can claim far more and fill the memory.
MAX_PIXELS = 2**26
# What is decoded, whatever a file is called. Others have decoders that start programs
# (EPS), or that hardly anybody has tested on files made to break them.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")


@dataclasses.dataclass(frozen=True)
class Fit:
    """How images are brought to one size; bilinear, antialiased.

    Attributes:
        size: (height, width) of the result, or None to keep an image's own.
        channels: 1 or 3; anything else in the file is converted (alpha is dropped).
        resize: int, the length in pixels that the shorter side is resized to (the
            longer one in proportion, rounded down) before the centre is cut out.
            Default: the image is resized to just cover `size`.
    """

    size: tuple[int, int] | None
    channels: int
    resize: int | None = None

    @property
    def shape(self):
        """Tuple (height, width, channels) of the result; it needs a size."""
        height, width = cast(tuple, self.size)
        return height, width, self.channels


def read_size(path):
    """Return (height, width) of an image file as shown, without decoding it."""
    return _reading(path, lambda image: _shown_size(image))


def read_image(path, fit):
    """Decode an image file and bring it to a size.

    Args:
        path: str.
        fit: `Fit`.

    Returns:
        uint8 array (height, width, channels).

    Raises:
        InvalidValue: naming the file, if it is corrupt, truncated, not of a kind that
            is read, or of more than 2**26 pixels, as it is or resized; its header says
            so before any is decoded. Of an animation the first image counts.
    """
    size, channels = fit.size, fit.channels

    def decode(image):
        if size and not fit.resize and image.size != size[::-1]:
            # Lets a JPEG far larger than needed be decoded at a fraction of its size.
            # Not where the way to evaluate is prescribed: it is a way to resize too.
            image.draft(None, (max(size), max(size)))
        shown = _upright(image)
        if fit.resize:
            shown = _resize(_convert(shown, channels), fit.resize, size)
        elif size:
            shown = _cover(_convert(shown, channels), size)
        return _pixels(shown, channels)

    return _reading(path, decode, fit.resize)


def read_part(path, fit, draw):
    """Decode an image file and bring a part of it to a size.

    Args:
        path: str.
        fit: `Fit`.
        draw: function from the image's (height, width) as shown to the part's first
            row, first column, height and width, and whether to mirror it.

    Returns:
        uint8 array (height, width, channels).

    Raises:
        InvalidValue: as `read_image`.
    """

    def decode(image):
        whole_height, whole_width = _shown_size(image)
        top, left, height, width, mirror = draw((whole_height, whole_width))
        needed = max(fit.size[0] / height, fit.size[1] / width)
        # A JPEG is decoded at the smallest fraction that leaves enough of the part.
        image.draft(
            None, (math.ceil(image.width * needed), math.ceil(image.height * needed))
        )
        shown = _convert(_upright(image), fit.channels)
        x, y = shown.width / whole_width, shown.height / whole_height
        right, bottom = round((left + width) * x), round((top + height) * y)
        part = shown.crop((round(left * x), round(top * y), right, bottom))
        pixels = _pixels(_bilinear(part, fit.size), fit.channels)
        return np.ascontiguousarray(pixels[:, ::-1]) if mirror else pixels

    return _reading(path, decode)


def _pixels(image, channels):
    pixels = np.asarray(_convert(image, channels))
    return pixels.reshape(*pixels.shape[:2], channels)


def _reading(path, use, shorter=None):
    """Open an image and use it, if its header says that it is of a size to decode."""
    from PIL import Image

    try:
        with Image.open(path, formats=_FORMATS) as image:
            pixels = image.width * image.height
            if shorter and pixels <= MAX_PIXELS:
                width, height = _scaled(image.size, shorter)
                pixels = max(pixels, width * height)
            if pixels <= MAX_PIXELS:
                return use(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pixels = "far too many"
    except Image.UnidentifiedImageError:
        raise InvalidValue(
            f"Corrupt image {path!r}: it is none of {', '.join(_FORMATS)}. Replace it."
        ) from None
    except FileNotFoundError:
        raise InvalidValue(f"Missing image {path!r}. Put it back.") from None
    # Pillow's decoders raise many kinds of error for damaged files.
    except Exception as error:
        raise InvalidValue(f"Corrupt image {path!r}: {error}. Replace it.") from error
    resized = f", also with its shorter side resized to {shorter}" if shorter else ""
    raise InvalidValue(
        f"Invalid image {path!r}. Expected at most {MAX_PIXELS} pixels{resized}. "
        f"Received: {pixels}. Shrink or remove it."
    )


def _upright(image):
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _shown_size(image):
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (image.width, image.height) if turned else (image.height, image.width)


def _convert(image, channels):
    from PIL import Image

    mode = {1: "L", 3: "RGB"}[channels]
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255.
        deep = np.asarray(image).astype(np.int64) >> 8
        image = Image.fromarray(np.clip(deep, 0, 255).astype(np.uint8))
    elif image.mode == "P":
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)


def _bilinear(image, size, box=None):
    from PIL import Image

    return image.resize(size[::-1], Image.Resampling.BILINEAR, box=box)


def _resize(image, shorter, size):
    """Resize the shorter side, cut out the centre."""
    width, height = _scaled(image.size, shorter)
    image = _bilinear(image, (height, width))
    top, left = (image.height - size[0]) // 2, (image.width - size[1]) // 2
    return image.crop((left, top, left + size[1], top + size[0]))


def _scaled(sides, shorter):
    return [side * shorter // min(sides) for side in sides]


def _cover(image, size):
    height, width = size
    scale = max(height / image.height, width / image.width)
    # The part of the image that the result shows, in its own pixels.
    shown_width, shown_height = width / scale, height / scale
    left = (image.width - shown_width) / 2
    top = (image.height - shown_height) / 2
    box = (
        max(left, 0.0),
        max(top, 0.0),
        min(left + shown_width, image.width),
        min(top + shown_height, image.height),
    )
    return _bilinear(image, size, box)


def fit_tensor(image, fit):
    """Bring a decoded image tensor to a size, as `read_image` does for a file.

    Args:
        image: uint8 tensor (height, width, 1, 3 or 4).
        fit: `Fit` with a size.

    Returns:
        uint8 tensor (*size, channels).
    """
    size = fit.size
    if fit.resize or image.shape[:2] != tuple(size):
        target = tf.constant(size)
        own = tf.shape(image, tf.int64)[:2]
        if fit.resize:
            scaled = own * fit.resize // tf.reduce_min(own)
        else:
            exact = tf.cast(own, tf.float64)
            exact *= tf.reduce_max(tf.cast(target, tf.float64) / exact)
            scaled = tf.cast(tf.round(exact), tf.int64)
        pixels = tf.reduce_prod(tf.cast(scaled, tf.float64))
        expected = f"Invalid image: expected at most {MAX_PIXELS} pixels when resized"
        few = tf.debugging.Assert(pixels <= MAX_PIXELS, [expected, "received", pixels])
        with tf.control_dependencies([few]):
            scaled = tf.maximum(tf.cast(scaled, tf.int32), target)
        image = _resized_tensor(image, scaled)
        start = (scaled - target) // 2
        image = image[start[0] : start[0] + size[0], start[1] : start[1] + size[1]]
    return _converted_tensor(image, fit)


def part_tensor(data, decode, fit, draw):
    """Decode an image and bring a part of it to a size, as `read_part` does.

    Of a JPEG only the part is decoded.

    Args:
        data: scalar string tensor, the encoded image.
        decode: function from `data` to a uint8 tensor (height, width, 1, 3 or 4), for
            images that are no JPEG.
        fit: `Fit` with a size.
        draw: function from a tensor (2,), the image's (height, width), to an int32
            tensor (5,), as `draw_part` gives it.

    Returns:
        uint8 tensor (*size, channels).
    """

    def of_jpeg():
        part = draw(tf.io.extract_jpeg_shape(data)[:2])
        image = tf.io.decode_and_crop_jpeg(data, part[:4], channels=fit.channels)
        return image, part[4]

    def of_other():
        image = decode(data)
        part = draw(tf.shape(image)[:2])
        end = part[:2] + part[2:4]
        image = image[part[0] : end[0], part[1] : end[1]]
        # Both branches have to give the same number of channels.
        whole = dataclasses.replace(fit, size=(None, None))
        return _converted_tensor(image, whole), part[4]

    image, mirror = tf.cond(tf.io.is_jpeg(data), of_jpeg, of_other)
    image = _resized_tensor(image, fit.size)
    image = tf.cond(mirror > 0, lambda: tf.reverse(image, [1]), lambda: image)
    return tf.ensure_shape(image, fit.shape)


def _resized_tensor(image, size):
    resized = tf.image.resize(image, size, method="bilinear", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


def _converted_tensor(image, fit):
    channels = fit.channels
    if channels == 3 and image.shape[-1] == 1:
        image = tf.image.grayscale_to_rgb(image)
    elif channels == 1 and image.shape[-1] != 1:
        image = tf.image.rgb_to_grayscale(image[..., :3])
    elif channels == 3:
        image = image[..., :3]
    return tf.ensure_shape(image, fit.shape)
