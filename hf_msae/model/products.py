"""Dense products of the model, in float32 on processors that are slow in half precision."""

from __future__ import annotations

import platform

import torch


def _slow_dtypes() -> frozenset[torch.dtype]:
    """Return the dtypes whose products on this processor oneDNN cannot compute, which leaves them to plain loops."""
    if not torch.backends.mkldnn.is_available() or platform.machine().lower() not in ("x86_64", "amd64"):
        return frozenset()  # not measured
    known = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,  # AVX-512
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,  # AVX-512 with FP16
    }
    return frozenset(dtype for dtype, is_supported in known.items() if not is_supported())


# A constant, because torch.compile can trace neither the operators nor a cache.
_SLOW_DTYPES = _slow_dtypes()


def multiplies_slowly(dtype: torch.dtype | None, device: torch.device) -> bool:
    """Return whether products in `dtype` are many times slower on this device than in float32.

    So it is with bfloat16 on x86 processors without AVX-512 (benchmarks/RESULTS.md).
    """
    return device.type == "cpu" and dtype in _SLOW_DTYPES


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the dtype that autocast asks for on this device, or None outside of autocast."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


def product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return `left @ right` of two tensors of one dtype, computed in float32 if half precision would be slower.

    Then the result has the dtype of `left` even under autocast, which asks for speed, and not for rounding.
    """
    dtype = left.dtype
    if dtype == torch.float32:  # autocast leaves float64 as it is
        dtype = autocast_dtype(left.device) or dtype
    if not multiplies_slowly(dtype, left.device):
        return left @ right
    with torch.autocast("cpu", enabled=False):
        return (left.float() @ right.float()).to(left.dtype)
