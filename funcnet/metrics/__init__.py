"""Metrics: frozen values that measure outputs beside the loss, with totals that add up over batches and ranks.

Accuracies, scores of labels from a confusion matrix, areas under curves, calibration and regression; ``Average`` of any function.
"""
