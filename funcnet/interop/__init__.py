"""Interop: funcnet beside torch.nn, autograd, ONNX, scikit-learn and TensorBoard. Only here are torch.nn and autograd used."""
