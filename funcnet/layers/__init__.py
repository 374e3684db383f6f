"""Layers, a folder for each family. How to add one: CONTRIBUTING.md."""
