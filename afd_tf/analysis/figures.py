"""Figures of an analysis as PNG; they need matplotlib, the extra `[plot]`."""

import importlib.util

import numpy as np

_CELL = 1.7  # inches


def available():
    """Say whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_calibration(path, comparison):
    """Draw the reliability diagram of every network and the ensemble.

    Args:
        path: str or path of the PNG.
        comparison: dict, what `compare` returned.
    """
    networks = comparison["networks"]
    figure, axes = _grid(1, len(networks), cell=2.6)
    for axis, (name, values) in zip(axes[0], networks.items(), strict=True):
        bins = values["bins"]
        edges = np.linspace(0, 1, len(bins) + 1)
        heights = [each["accuracy"] or 0.0 for each in bins]
        axis.bar(edges[:-1], heights, 1 / len(bins), align="edge", edgecolor="white")
        axis.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
        axis.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence")
        axis.set_title(f"{name}\nECE {100 * values['ece']:.2f} %", fontsize=8)
        axis.tick_params(labelsize=6)
    axes[0, 0].set_ylabel("accuracy")
    _save(figure, path)


def draw_grad_cams(path, pictures, cams, titles, captions):
    """Draw images and, beside each, the class activation map of every network on it.

    Args:
        path: str or path of the PNG.
        pictures: float array `(images, height, width, 1 or 3)` in [0, 1].
        cams: dict from network to float array `(images, height, width)` in [0, 1].
        titles: list of str, one per image.
        captions: dict from network to list of str, one per image.
    """
    figure, axes = _grid(len(pictures), 1 + len(cams))
    for row, picture in enumerate(pictures):
        shown = picture if picture.shape[-1] == 3 else picture[..., 0]
        columns = [(titles[row], None)]
        columns += [(captions[name][row], cams[name][row]) for name in cams]
        for axis, (text, cam) in zip(axes[row], columns, strict=True):
            axis.imshow(shown, cmap="gray", vmin=0, vmax=1)
            if cam is not None:
                axis.imshow(cam, cmap="jet", vmin=0, vmax=1, alpha=0.45)
            axis.set_axis_off()
            axis.set_title(text, fontsize=6)
    _save(figure, path)


def _grid(rows, columns, cell=_CELL):
    # Without pyplot, which keeps figures and asks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(cell * columns, (cell + 0.35) * rows), layout="tight")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _save(figure, path):
    figure.savefig(path, dpi=150, format="png")
