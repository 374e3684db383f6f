"""Examples for several workers, which ``torchrun`` starts; each also runs as one plain process."""
