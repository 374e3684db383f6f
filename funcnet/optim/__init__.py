"""Optimizers, the transforms of gradients that go before them, and the schedules of their rates.

To add an optimizer, subclass ``base.MomentOptimizer``: the names of its moments, its rates at a step, and its formula for lists
of tensors; ``MomentOptimizer`` brings ``init``, ``update``, ``None`` gradients and the errors.
"""
