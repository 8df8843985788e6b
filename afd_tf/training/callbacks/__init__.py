"""Keras callbacks of a run: saving, metrics, progress, bad steps."""
