"""What a step of training costs in funcnet, torch.nn, JAX and thinc: ``python -m examples.benchmarks``."""
