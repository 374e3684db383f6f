"""The package ``funcnet.interop``: its imports, and its errors if an extra is missing."""

import subprocess
import sys

import pytest

from funcnet import interop

EXTRAS = ("numpy", "scipy", "sklearn", "pandas", "onnx", "onnxscript", "onnxruntime", "tensorboard", "torchvision")

WITHOUT_EXTRAS = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS}))  # as if they were not installed
import torch
import funcnet as fn

print([name for name in ("torch_nn", "onnx", "sklearn", "tensorboard") if f"funcnet.interop.{{name}}" in sys.modules])
net, params = fn.interop.torch_nn.from_torch(torch.nn.Linear(2, 3))
x = torch.ones(4, 2)
assert torch.equal(fn.interop.torch_nn.to_torch(net, params)(x), net(params, x))
data = (x, torch.ones(4, 3))
for extra, use in {{
    "onnx": lambda: fn.interop.onnx.export(net, params, x, "net.onnx"),
    "sklearn": lambda: fn.interop.sklearn.Classifier(),
    "tensorboard": lambda: fn.fit(
        net, fn.MSE(), fn.SGD(0.1), data, epochs=1, batch_size=4, key=0, callbacks=[fn.interop.tensorboard.TensorBoard("runs")]
    ),
}}.items():
    try:
        use()
    except ImportError as error:
        print(extra, f"pip install 'funcnet[{{extra}}]'" in str(error))
"""


def test_the_package_without_its_extras(tmp_path):
    """Modules are imported on use; a missing extra gives an error that says how to install it."""
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_EXTRAS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "onnx True", "sklearn True", "tensorboard True"]


def test_the_modules_of_the_package_are_listed_and_others_are_not_there():
    """``dir`` and editors see them; an unknown name is Python's usual error."""
    assert {"onnx", "sklearn", "tensorboard", "torch_nn"} <= {*dir(interop)}
    with pytest.raises(AttributeError, match=r"module 'funcnet\.interop' has no attribute 'keras'"):
        interop.keras  # noqa: B018
