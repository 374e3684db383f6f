"""The cost of a training step in funcnet, torch.nn, JAX and thinc: ``python -m examples.benchmarks``."""
