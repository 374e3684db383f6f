"""Optimizers, gradient transforms that precede them in a chain, and schedules of their rates.

To add an optimizer, subclass ``moments.MomentOptimizer`` as ``lion.Lion`` does: the names of its moments, its hyperparameters,
and its formula for one leaf. The base provides ``init``, ``update``, schedules, absent gradients, donation and the errors.
"""
