"""Images cut and resized in float64 NumPy, from the definitions."""

import numpy as np


def weights(size, result):
    """Return the triangle filter's (result, size) matrix, widened for fewer pixels."""
    scale = size / result
    centres = (np.arange(result) + 0.5) * scale
    pixels = np.arange(size) + 0.5
    matrix = 1 - np.abs(pixels - centres[:, np.newaxis]) / max(scale, 1.0)
    matrix = np.maximum(matrix, 0)
    return matrix / matrix.sum(axis=1, keepdims=True)


def resized(image, height, width):
    """Resize bilinearly with antialiasing, in float64."""
    rows = weights(image.shape[0], height)
    columns = weights(image.shape[1], width)
    return np.einsum("ri,cj,ijk->rck", rows, columns, image.astype(np.float64))


def part_of(image, part, size):
    top, left, height, width, mirror = part
    result = resized(image[top : top + height, left : left + width], *size)
    return result[:, ::-1] if mirror else result


def centre_of(image, shorter, size):
    height, width = image.shape[:2]
    scaled = (
        height * shorter // min(image.shape[:2]),
        (width * shorter // min(image.shape[:2])),
    )
    image = resized(image, *scaled)
    top, left = (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2
    return image[top : top + size[0], left : left + size[1]]
