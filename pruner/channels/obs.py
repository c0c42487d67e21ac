"""OBS error curves: the order in which a group's channels go, and the error left after their readers are refitted.

Structured Optimal Brain Surgeon (Hassibi & Stork 1993; Kurtic, Frantar & Alistarh 2023, ZipLM) on the features that
a layer reads: with their covariance C, P = inv(C + ridge), and the readers' weights W (outputs x channels) in units of
what BatchNorm makes of them, removing channel j and refitting the others costs |W_j|^2 / P_jj. Cheapest first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pruner.channels.features import moments, ridge, scale
from pruner.data.datasets import Split
from pruner.network.structure import BLOCKS, GROUPS, Group, Reader, reader_behind
from pruner.system.cores import on_cores


def obs_scores(
    model: nn.Module,
    calibration: Split,
    *,
    resolution: int = 224,
    seed: int = 0,
    on_images: Callable[[int], None] | None = None,
) -> dict[str, Tensor]:
    """Group name -> for each channel (channels,), float32, the error once it and all cheaper ones are gone.

    So the scores are a ranking, and sorted they are the error curve: its k-th value is the error after k channels
    have gone. Errors are relative: of a hidden width to the variance of its block's output (with what the block adds
    to), of a stage's output to the variance of what its readers make of it, averaged over them, of the head to the
    logits' variance. `on_images(n)` is told of every n images done.
    """
    found = moments(model, calibration, resolution=resolution, seed=seed, on_images=on_images)

    def curve(group: Group) -> Tensor:
        readers = group.readers
        weights = [_weights(model, reader) for reader in readers]
        covariances = [found[reader.layer].covariance.cpu() for reader in readers]
        if group.block is not None:
            behind = reader_behind(BLOCKS[group.block - 1])
            variances = [float(found[behind.layer].covariance.trace())]
        else:
            variances = [float(((w @ c) * w).sum()) for w, c in zip(weights, covariances, strict=True)]
        shares = [1 / (len(readers) * max(variance, torch.finfo(torch.float32).tiny)) for variance in variances]
        damping = [ridge(weights[0].shape[1], found[reader.layer].count) for reader in readers]
        order, errors = obs_error_curve(weights, covariances, shares, damping)
        scores = torch.empty(len(order), dtype=torch.float32)
        scores[order] = errors.float()
        return scores

    widest_first = sorted(GROUPS, key=lambda group: -len(found[group.readers[0].layer].covariance))
    curves = dict(zip(widest_first, on_cores(curve, widest_first), strict=True))
    return {group.name: curves[group] for group in GROUPS}


def _weights(model: nn.Module, reader: Reader) -> Tensor:
    """(outputs, channels), float64: what a channel adds to each output behind the BatchNorm."""
    weight = model.get_submodule(reader.layer).weight
    assert isinstance(weight, Tensor)
    flat = weight.detach().flatten(1).double()
    if reader.norm:
        flat = flat * scale(model.get_submodule(reader.norm))[:, None]
    return flat.cpu()


def obs_error_curve(
    weights: list[Tensor], covariances: list[Tensor], shares: list[float], damping: list[float]
) -> tuple[Tensor, Tensor]:
    """(order in which a group's channels go, the error after each), both (channels,).

    `weights`: for each reader (outputs, channels); `covariances`: of what it reads; `shares`: what its squared error
    is multiplied by before the readers' errors are added; `damping`: what is added to each covariance's diagonal, as a
    share of its mean.
    """
    width = weights[0].shape[1]
    weights = [weight.double() * share**0.5 for weight, share in zip(weights, shares, strict=True)]
    inverses = []
    for covariance, ridge_share in zip(covariances, damping, strict=True):
        damped = covariance.double() + ridge_share * covariance.diagonal().mean().clamp(min=1e-12) * torch.eye(width)
        inverses.append(torch.cholesky_inverse(torch.linalg.cholesky(damped)))
    left = torch.arange(width)
    """The channels of the remaining rows and columns."""
    going = torch.zeros(width, dtype=torch.bool)
    order, errors, error = [], [], 0.0
    for _ in range(width):
        if int(going.sum()) * 4 > len(left):  # rows and columns of what is gone only cost time
            stay = ~going
            left, going = left[stay], going[stay]
            weights = [weight[:, stay] for weight in weights]
            inverses = [inverse[stay][:, stay].contiguous() for inverse in inverses]
        costs = torch.zeros(len(left), dtype=torch.float64)
        for weight, inverse in zip(weights, inverses, strict=True):
            costs += weight.square().sum(0) / inverse.diagonal().clamp(min=torch.finfo(torch.float64).tiny)
        costs[going] = torch.inf
        cheapest = int(costs.argmin())
        error += float(costs[cheapest])
        order.append(int(left[cheapest]))
        errors.append(error)
        going[cheapest] = True
        for weight, inverse in zip(weights, inverses, strict=True):
            column = inverse[:, cheapest].clone()
            weight.addr_(weight[:, cheapest] / column[cheapest], column, alpha=-1)
            inverse.addr_(column / column[cheapest], column, alpha=-1)
            # What is gone must not come back through rounding.
            inverse[:, cheapest] = 0
            inverse[cheapest, :] = 0
    return torch.tensor(order), torch.tensor(errors, dtype=torch.float64)
