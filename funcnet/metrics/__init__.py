"""Metrics: frozen values that measure outputs in addition to the loss, with totals that add up over batches and ranks.

Accuracies, scores of labels, confusion matrices, areas under curves, calibration and regression; ``Average`` of any function.
"""
