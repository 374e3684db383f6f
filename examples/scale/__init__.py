"""Examples for several workers, started with ``torchrun``; each also runs in a single process."""
