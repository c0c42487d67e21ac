"""Fine-grained pruning: masks that set single weights of convolutions and of the classifier to zero and keep them so.

One rule, `threshold_mask`, makes masks from importances. Masks leave shapes, and so operations, unchanged: they make a
network smaller to store, not faster to run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruner.data.batches import map_batches
from pruner.data.datasets import Split
from pruner.errors import InputError, check_name
from pruner.network.structure import MODULES, module_of
from pruner.recipe import MASK_IMPORTANCES, Mask

Masks = dict[str, Tensor]
"""Name of a weight -> bool tensor of its shape; False: the weight is zero."""


def weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that can be masked, by name, first layer to last: those of 52 convolutions and the classifier."""
    layers = (name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear))
    return {f"{name}.weight": model.get_parameter(f"{name}.weight") for name in layers}


def looks_masked(weight: Tensor) -> bool:
    """Does this weight, of shape (filters, ...), have zeros that only a mask makes?

    Training and rounding make zeros, too. The weights of dead channels decay to zero as whole filters or whole inputs;
    these are ignored. A network rounded to 8 bits has 2 to 10 % zeros in each layer, but about twice as many weights
    one step from zero, on either side. So a weight counts as masked if its filters have more zeros than weights of the
    filter's smallest nonzero magnitude, by more than three standard deviations of such counts.
    """
    sizes = weight.detach().abs().flatten(1)
    sizes = sizes[sizes.any(1)]
    sizes = sizes[:, sizes.any(0)]
    if not sizes.numel():
        return False
    zero = sizes == 0
    smallest = sizes.masked_fill(zero, torch.inf).amin(1, keepdim=True)
    zeros, beside = int(zero.sum()), int((sizes == smallest).sum())
    return zeros - beside > 3 * (zeros + beside) ** 0.5


def threshold_mask(importance: Tensor, sparsity: float) -> Tensor:
    """Make the mask that zeroes the least important fraction `sparsity` (clamped to [0, 1]).

    For n elements, the threshold is the round(sparsity * n)-th smallest importance; elements strictly above it stay.
    So elements that tie with the threshold are zeroed, too, and a higher sparsity zeroes a superset.

    >>> threshold_mask(torch.tensor([3.0, 1.0, 2.0, 2.0]), 0.5).tolist()
    [True, False, False, False]
    """
    sparsity = min(max(0.0, sparsity), 1.0)
    zeros = round(sparsity * importance.numel())
    if zeros == 0:
        return torch.ones_like(importance, dtype=torch.bool)
    threshold = importance.flatten().kthvalue(zeros).values
    return importance > threshold


def score_weights(
    model: nn.Module,
    importance: str,
    calibration: Split | None = None,
    *,
    resolution: int = 224,
    on_images: Callable[[int], None] | None = None,
) -> dict[str, Tensor]:
    """Compute the importance of every weight, by name. The network is not modified.

    magnitude: |w|. taylor: |w * gradient|, with the gradient of the cross-entropy on eight calibration images, summed
    over such batches (Molchanov et al. 2017, for single weights). The absolute value is taken before summing, because
    the gradients of a trained network would otherwise cancel and leave noise.

    `on_images(n)` is called after every n calibration images. Raises InputError if images are needed but missing.
    """
    check_name("importance", importance, MASK_IMPORTANCES)
    found = weights(model)
    if importance == "magnitude":
        return {name: weight.detach().abs() for name, weight in found.items()}
    if calibration is None or not len(calibration):
        raise InputError("importance: 'taylor' ranks by gradients and needs calibration images")
    working = copy.deepcopy(model).eval().requires_grad_(True).to(calibration.images.device)
    parameters = list(weights(working).values())
    sums = [torch.zeros_like(weight) for weight in parameters]

    def gradients(images: Tensor, labels: Tensor, _number: int) -> list[Tensor]:
        loss = F.cross_entropy(working(images), labels, reduction="sum")
        return [gradient.abs() for gradient in torch.autograd.grad(loss, parameters)]

    for each in map_batches(gradients, calibration, batch_size=8, resolution=resolution, on_images=on_images):
        torch._foreach_add_(sums, each)
    return {
        name: weight.detach().abs() * total.to(weight.device)
        for (name, weight), total in zip(found.items(), sums, strict=True)
    }


def make_masks(scores: Mapping[str, Tensor], mask: Mask, share: float = 1.0) -> Masks:
    """Make the masks that a recipe's `Mask` asks for, from the weights' importances.

    `share`: fraction of the recipe's sparsities to apply, for gradual pruning.
    """
    if mask.global_sparsity is not None:
        return _global_masks(scores, share * mask.global_sparsity)
    return {name: threshold_mask(score, share * sparsity_of(mask, name)) for name, score in scores.items()}


def shrink_masks(masks: Masks, scores: Mapping[str, Tensor], mask: Mask, share: float) -> Masks:
    """Make masks for a `share` of the recipe's sparsities from new importances; masked weights stay masked."""
    masks = {name: masks[name].to(score.device) for name, score in scores.items()}
    new = make_masks({name: score.masked_fill(~masks[name], -1.0) for name, score in scores.items()}, mask, share)
    return {name: value & masks[name] for name, value in new.items()}


def cubic(part: float) -> float:
    """The share of the final sparsity after the fraction `part` of the schedule (Zhu & Gupta 2017)."""
    return 1 - (1 - part) ** 3


def sparsity_of(mask: Mask, name: str) -> float:
    """The sparsity for the weight of that name: its own, else its stage's, else the uniform one."""
    return mask.sparsity.get(name, mask.sparsity.get(MODULES[module_of(name)], mask.uniform))


def _global_masks(scores: Mapping[str, Tensor], sparsity: float) -> Masks:
    """Make masks with one threshold for all weights."""
    flat = threshold_mask(torch.cat([score.flatten() for score in scores.values()]), sparsity)
    parts = torch.split(flat, [score.numel() for score in scores.values()])
    return {name: part.view_as(score) for (name, score), part in zip(scores.items(), parts, strict=True)}


def apply_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Zero the masked weights in place."""
    found = weights(model)
    with torch.no_grad():
        for name, mask in masks.items():
            found[name].mul_(mask.to(found[name].device))


class MaskKeeper:
    """Keeps masked weights zero during training and, in a gradual recipe, updates the masks."""

    def __init__(self, model: nn.Module, mask: Mask, masks: Masks) -> None:
        """`masks`: the initial masks; all True for a gradual recipe."""
        self.masks = {name: value.clone() for name, value in masks.items()}
        self._mask, self._weights = mask, weights(model)
        self._gradients = {name: torch.zeros_like(weight) for name, weight in self._weights.items()} if (
            mask.gradual and mask.importance == "taylor") else {}  # fmt: skip

    def to(self, device: torch.device) -> None:
        """Move the masks to the network's device."""
        self.masks = {name: mask.to(device) for name, mask in self.masks.items()}
        self._gradients = {name: total.to(device) for name, total in self._gradients.items()}

    @torch.no_grad()
    def after_step(self, optimizer: torch.optim.Optimizer, step: int, steps: int) -> None:
        """Zero masked weights and their momentum; call it after each optimizer step (`step` of `steps`, from 0)."""
        for name, total in self._gradients.items():
            gradient = self._weights[name].grad
            if gradient is not None:
                total.add_(gradient.abs())
        if self._mask.gradual and (share := self._share_due(step, steps)) is not None:
            self._tighten(share)
        for name, weight in self._weights.items():
            mask = self.masks[name]
            weight.mul_(mask)
            for value in optimizer.state[weight].values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    value.mul_(mask)

    def _share_due(self, step: int, steps: int) -> float | None:
        """The share of the final sparsity due at this step; None between pruning steps."""
        end = max(1, round(self._mask.end_fraction * steps))
        count = min(self._mask.pruning_steps, end)
        due = [round((i + 1) * end / count) - 1 for i in range(count)]
        if step not in due:
            return None
        return cubic((due.index(step) + 1) / count)

    def _tighten(self, share: float) -> None:
        """Shrink the masks to a `share` of the final sparsity."""
        if self._gradients:
            scores = {name: weight.abs() * self._gradients[name] for name, weight in self._weights.items()}
        else:
            scores = {name: weight.abs() for name, weight in self._weights.items()}
        self.masks = shrink_masks(self.masks, scores, self._mask, share)
        for total in self._gradients.values():
            total.zero_()

    def state(self) -> dict[str, Tensor]:
        """The state that a resumed run needs."""
        gradients = {f"gradient:{name}": total for name, total in self._gradients.items()}
        return {**self.masks, **gradients}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Resume from the value of `state`."""
        for name, mask in self.masks.items():
            mask.copy_(state[name])
        for name, total in self._gradients.items():
            total.copy_(state[f"gradient:{name}"])
