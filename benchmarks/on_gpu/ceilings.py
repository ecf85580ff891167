"""What the device can do at best, as all other sections count it."""

import torch
from on_gpu.bench import Bench, Rows
from on_gpu.clock import device_seconds
from report import Row
from roofline import Ceilings


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
    yield Row(f"matrix product of {side} squared", flops / 1e12, "TFLOP/s")
    bench.ceilings = Ceilings(flops, bandwidth)
