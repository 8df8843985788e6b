"""Architectures, one file a family, and their registry."""
