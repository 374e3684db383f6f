"""Converters of functions and methods in traced code, by family."""
