"""Devices and workers: strategies, clusters, and Keras' shim for several of them."""
