"""Decode image files by their content, whatever they are called."""

import numpy as np

# Enough for any photograph; a small file can claim far more and fill the memory.
MAX_PIXELS = 2**26
# What is decoded, whatever a file is called. Others have decoders that start programs
# (EPS), or that hardly anybody has tested on files made to break them.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")


def read_size(path):
    """Return (height, width) of an image file as shown, without decoding it."""
    return _reading(path, lambda image: _shown_size(image))


def read_image(path, size, channels):
    """Decode an image file.

    Args:
        path: str.
        size: (height, width) to fit: the image is resized to cover it (bilinear,
            antialiased) and its centre is kept. None keeps the image's own size.
        channels: 1 or 3; anything else in the file is converted (alpha is dropped).

    Returns:
        uint8 array (height, width, channels).

    Raises:
        ValueError: naming the file, if it is corrupt, truncated, not of a kind that is
            read, or of more than 2**26 pixels, as its header says before any is
            decoded. Of an animation the first image counts.
    """

    def decode(image):
        if size and image.size != size[::-1]:
            # Lets a JPEG far larger than needed be decoded at a fraction of its size.
            image.draft(None, (max(size), max(size)))
        shown = _upright(image)
        if size:
            shown = _fit(_convert(shown, channels), size)
        pixels = np.asarray(_convert(shown, channels))
        return pixels.reshape(*pixels.shape[:2], channels)

    return _reading(path, decode)


def _reading(path, use):
    from PIL import Image

    try:
        with Image.open(path, formats=_FORMATS) as image:
            pixels = image.width * image.height
            if pixels <= MAX_PIXELS:
                return use(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        pixels = "far too many"
    except Image.UnidentifiedImageError:
        raise ValueError(
            f"Corrupt image {path!r}: it is none of {', '.join(_FORMATS)}. Replace it."
        ) from None
    # Pillow's decoders raise many kinds of error for damaged files.
    except Exception as error:
        raise ValueError(f"Corrupt image {path!r}: {error}. Replace it.") from error
    raise ValueError(
        f"Invalid image {path!r}. Expected at most {MAX_PIXELS} pixels. Received: "
        f"{pixels}. Shrink or remove it."
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


def _fit(image, size):
    from PIL import Image

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
    return image.resize((width, height), Image.Resampling.BILINEAR, box=box)


def fit_tensor(image, size, channels):
    """Fit a decoded image tensor to a size, as `read_image` does for a file.

    Args:
        image: uint8 tensor (height, width, 1, 3 or 4).
        size: (height, width) to cover; the centre is kept.
        channels: 1 or 3.

    Returns:
        uint8 tensor (*size, channels).
    """
    import tensorflow as tf

    if image.shape[:2] != tuple(size):
        target = tf.constant(size)
        own = tf.shape(image)[:2]
        scale = tf.reduce_max(tf.cast(target, tf.float64) / tf.cast(own, tf.float64))
        scaled = tf.cast(tf.round(tf.cast(own, tf.float64) * scale), tf.int32)
        scaled = tf.maximum(scaled, target)
        resized = tf.image.resize(image, scaled, method="bilinear", antialias=True)
        start = (scaled - target) // 2
        resized = resized[start[0] : start[0] + size[0], start[1] : start[1] + size[1]]
        image = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
    if channels == 3 and image.shape[-1] == 1:
        image = tf.image.grayscale_to_rgb(image)
    elif channels == 1 and image.shape[-1] != 1:
        image = tf.image.rgb_to_grayscale(image[..., :3])
    elif channels == 3:
        image = image[..., :3]
    return tf.ensure_shape(image, (*size, channels))
