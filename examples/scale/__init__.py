"""Training in several processes: programs for ``torchrun``, and a simulation of what they cost on many devices."""
