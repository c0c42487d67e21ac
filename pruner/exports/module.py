"""Write a network as the course requires it: one pickled module of stock classes."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import torch
from torch import nn

from pruner.errors import InputError
from pruner.network.loading import load_network
from pruner.network.mobilenet import architecture_difference, widths
from pruner.system.files import write_whole


def export_module(model: nn.Module, path: Path | str) -> int:
    """Write the network as one pickled module of stock classes, as the course requires: 32-bit, on the CPU, eval mode.

    The file is then loaded back and must give the same widths and, bit for bit, the same outputs.

    Args:
        model: A MobileNetV2 of any widths.
        path: The file to write. It is never left incomplete.

    Returns:
        The file's size in bytes.

    Raises:
        InputError: The network is no longer a MobileNetV2.
        AssertionError: The file loads as a different network; the file is removed.
    """
    path = Path(path)
    stock = copy.deepcopy(model).cpu().float().eval().to(memory_format=torch.contiguous_format)
    stock.zero_grad(set_to_none=True)
    if difference := architecture_difference(stock):
        raise InputError(f"{path}: not exported, no longer a MobileNetV2: {difference}")
    buffer = io.BytesIO()
    torch.save(stock, buffer)
    write_whole(path, buffer.getvalue())
    probe = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    again = load_network(path)
    with torch.inference_mode():
        if widths(again) != widths(stock) or not torch.equal(again(probe), stock(probe)):
            path.unlink()
            raise AssertionError(f"{path}: another network when loaded again")
    return buffer.tell()
