"""Which special kernels run on a device. Where one does not, its fallback is another machine to timings."""

from functools import cache

INT8_PRODUCTS = "int8 products"


@cache
def missing_kernels(device: str) -> dict[str, str]:
    """Return the kernels that should run on a device (``cpu`` or ``cuda:0``) and do not: name -> why."""
    import torch

    if device != "cpu":
        return {}  # nothing is asked of other devices
    try:
        ones = torch.ones((2, 16), dtype=torch.int8)
        torch._int_mm(ones, ones.T)
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        return {INT8_PRODUCTS: str(error).splitlines()[0]}
    return {}
