"""Layers, a file for each family.

To add one:

1.  Write its formula, forward and backward, into the family file's docstring, in the letters x, y, gy, gx.
2.  Write the class under it, made by ``frozen``: fields with validators, then ``init``, ``apply``, ``vjp`` in the same letters.
    Where ``torch.nn`` has the layer, its names, arguments, defaults and shapes are ours. A kernel of torch's gets its name in the
    family's file in ``funcnet.kernels``. ``grads`` and ``input_grad`` are worth overriding where half of the work can be saved.
3.  Say what is wrong on the failing path: ``param_shapes`` (of params) and ``complaint`` (of x) give ``explained`` its sentences. Check
    ahead only what no kernel would complain about.
4.  A size that x shows may be ``None`` until ``infer_sizes``: ``Size`` and ``size_or_none`` for the field, ``inferred_sizes`` for
    its axis, and ``known(self)`` in ``init``.
5.  Enter it, with all its options and odd sizes, in the family's file in ``tests/cases/``, which puts it under every law; compare
    it with ``torch.nn`` and autograd, by ``tests/twins.py``, in the family's test file, and match its sentences there.
6.  Export it in ``funcnet/__init__.py``, and name it in the README's table and in the changelog.
"""
