"""Parts of tools/benchmark_step.py."""
