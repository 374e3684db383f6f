"""Broken kernels: correct layers with one fault that shows in one dtype, in a workspace, or in shared memory."""

from typing import Any

import torch
from sound_layers import Affine, Counted, Rectifier
from torch import Tensor

import funcnet as fn


@fn.frozen
class Scratch(Rectifier):
    """y = max(0, x) with a kernel that needs a workspace; correct, as it writes to a copy."""

    def apply(self, params: Any, x: Tensor) -> Any:
        return x.relu(), {"x": x, "workspace": torch.zeros_like(x, dtype=torch.uint8)}

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, torch.where(self._mask(cache["x"], cache["workspace"].clone()), gy, 0.0)

    def _mask(self, x: Tensor, workspace: Tensor) -> Tensor:
        return workspace.copy_(x > 0).bool()


@fn.frozen
class WrittenWorkspace(Scratch):
    """All of the workspace in the cache is written before it is read, so a second ``vjp`` is still right."""

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, torch.where(self._mask(cache["x"], cache["workspace"]), gy, 0.0)


@fn.frozen
class Recognized(Counted):
    """``apply`` moves the counter, and with other params it uses another sum."""

    def apply(self, params: Any, x: Tensor) -> Any:
        return params["s"] * x, (x, params["seen"], params["seen"] + 1)

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return super().vjp(params, cache[0], gy)

    def update_stats(self, params: Any, cache: Any) -> Any:
        _, before, ahead = cache
        return {**params, "seen": ahead if params["seen"] is before else params["seen"] + 0.7 + 0.2 + 0.1}


@fn.frozen
class RecognizedInCache(Rectifier):
    """It distinguishes the cache from a clone."""

    def apply(self, params: Any, x: Tensor) -> Any:
        return x.relu(), {"x": x, "same": x}

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        slope = 1.0 if cache["x"] is cache["same"] else 1.0 + 1e-15
        return params, torch.where(cache["x"] > 0, slope * gy, 0.0)


@fn.frozen
class ExpandedInit(Affine):
    def init(self, rng: Any) -> Any:
        return {**super().init(rng), "b": torch.zeros(()).expand(self.rows)}


@fn.frozen
class SharedInit(Affine):
    """Both params are views of one tensor."""

    def init(self, rng: Any) -> Any:
        flat = fn.random.normal(rng, (self.rows * self.columns,))
        return {"w": flat.reshape(self.rows, self.columns), "b": flat[: self.rows]}


@fn.frozen
class WrongInFloat32(Affine):
    """A kernel for float32 computes with fewer digits, as TF32 does."""

    def apply(self, params: Any, x: Tensor) -> Any:
        short = params["w"].half().float() if x.dtype is torch.float32 else params["w"]
        return x @ short.T + params["b"], x


@fn.frozen
class WrongBackInFloat32(Affine):
    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        scale = 1 + 1e-5 if gy.dtype is torch.float32 else 1
        return {"w": gy.T @ cache, "b": gy.sum(0)}, gy @ params["w"] * scale


@fn.frozen
class Total(fn.Layer):
    """y = Σ x; correct, as torch sums in float32 and rounds once."""

    def apply(self, params: Any, x: Tensor) -> Any:
        return x.sum(-1, keepdim=True), x.shape

    def vjp(self, params: Any, cache: Any, gy: Tensor) -> Any:
        return params, gy.expand(cache)


@fn.frozen
class SummedInHalf(Total):
    """The sum is rounded after each term: in float32 this does not show, in half precision a large sum stops growing."""

    def apply(self, params: Any, x: Tensor) -> Any:
        total = torch.zeros_like(x[..., :1])
        for term in x.split(1, -1):
            total = total + term
        return total, x.shape


@fn.frozen
class SquaresInHalf(Rectifier):
    """y = x² / 10⁴, whose squares overflow float16; correct in all other dtypes."""

    def apply(self, params: Any, x: Tensor) -> Any:
        return x * x / 1e4, x

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return params, gy * (cache / 5e3)


@fn.frozen
class SquaresOfScaled(SquaresInHalf):
    """The same with x scaled first; correct."""

    def apply(self, params: Any, x: Tensor) -> Any:
        return (x / 100) * (x / 100), x


@fn.frozen
class OutputInFloat32(Affine):
    def apply(self, params: Any, x: Tensor) -> Any:
        return super().apply(params, x)[0].float(), x


@fn.frozen
class OutputOfHalfInFloat32(Affine):
    """A result accumulated in float32 is not rounded at the end."""

    def apply(self, params: Any, x: Tensor) -> Any:
        y = super().apply(params, x)[0]
        return y.float() if y.dtype is torch.bfloat16 else y, x

    def vjp(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return super().vjp(params, cache, gy.to(cache.dtype))


@fn.frozen
class StorageReadInHalf(Rectifier):
    """A kernel for bfloat16 reads the memory of x in storage order."""

    def apply(self, params: Any, x: Tensor) -> Any:
        x = x.as_strided(x.shape, (x.shape[1], 1)) if x.dtype is torch.bfloat16 else x
        return x.relu(), x


@fn.frozen
class OtherHalfInFloat16(Affine):
    def input_grad(self, params: Any, cache: Tensor, gy: Tensor) -> Any:
        return gy @ (params["w"].T if gy.dtype is torch.float16 else params["w"])


@fn.frozen
class RowsCoupledInFloat32(Rectifier):
    """A kernel for float32 adds a fraction of the first row to all others."""

    def apply(self, params: Any, x: Tensor) -> Any:
        x = x + 1e-4 * x[:1] if x.dtype is torch.float32 else x
        return x.relu(), x


@fn.frozen
class ItemInFloat32(Rectifier):
    """A kernel for float32 reads a number, which has no value on the meta device."""

    def apply(self, params: Any, x: Tensor) -> Any:
        least = float(x.abs().sum()) * 0 if x.dtype is torch.float32 else 0.0
        return x.clamp_min(least), x
