"""Replicas of a network, which share its weights and have running statistics of their own."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

N = TypeVar("N", bound=nn.Module)


def replica(network: N) -> N:
    """A copy, in training mode, whose weights are the network's own."""
    return copy.deepcopy(network, {id(weight): weight for weight in network.parameters()}).train()


def statistics(network: nn.Module) -> list[Tensor]:
    """BatchNorm's running means and variances, in the order of the layers."""
    return [buffer for buffer in network.buffers() if buffer.is_floating_point()]
