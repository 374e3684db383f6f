"""Optimizers, the transforms of gradients that go before them, and the schedules of their rates.

To add an optimizer, subclass ``moments.MomentOptimizer`` as ``lion.Lion`` does: the names of its moments, its hyperparameters,
and its formula for one leaf. The base brings ``init``, ``update``, schedules, absent gradients, donation and the errors.
"""
