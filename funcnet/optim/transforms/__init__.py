"""Gradient transforms: the parts of a ``chain``, by family. They keep the sign: the optimizer at the end subtracts."""
