"""Layers of our own: normalisation."""
