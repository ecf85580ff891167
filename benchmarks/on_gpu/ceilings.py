"""What the device can do at best, as all other sections count it."""

from functools import partial

import torch
from on_gpu.bench import Bench, Rows
from on_gpu.clock import device_seconds, launch_seconds
from report import Row
from roofline import Ceilings

# Products by which a warm device is measured.
_NUM_WARM = 20


@torch.inference_mode()
def measure_ceilings(bench: Bench) -> Rows:
    """Measure a large copy, bytes read and written, and a large matrix product."""
    amount, repeats = bench.amount, 2 * bench.amount.repeats
    source = torch.zeros(amount.copy_numbers, dtype=bench.dtype, device=bench.device)
    target = torch.empty_like(source)
    copying = device_seconds({"copy": [lambda: target.copy_(source)]}, bench.device, repeats)
    bandwidth = 2 * source.nbytes / copying["copy"]
    yield Row("copy, read and written", bandwidth / 1e12, "TB/s")
    side = amount.product_side
    left, right = (
        torch.randn(side, side, dtype=bench.dtype, device=bench.device) for _ in range(2)
    )
    product = torch.empty_like(left)
    multiplying = device_seconds(
        {"product": [lambda: torch.mm(left, right, out=product)]}, bench.device, repeats
    )
    flops = 2 * side**3 / multiplying["product"]
    bench.ceilings = Ceilings(flops, bandwidth)
    name = f"matrix product of {side} squared"
    yield Row(name, flops / 1e12, "TFLOP/s")
    multiply = partial(torch.mm, left, right, out=product)
    num_products = max(1, round(amount.sustained_seconds / multiplying["product"]))
    launch_seconds({"heat": multiply}, bench.device, 1, num_products)
    warm = launch_seconds({"warm": multiply}, bench.device, 1, _NUM_WARM)["warm"]
    lasting = 2 * side**3 / warm
    yield Row(f"{name}, behind seconds of them", lasting / 1e12, "TFLOP/s")
