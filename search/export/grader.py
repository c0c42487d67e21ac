"""Grade a hand-in zip by the course's own steps, in a process that imports nothing of this program.

    python grader.py ZIP TEST [--resolution 224]

TEST: the folder with `cifar-10-batches-py`, or a .pt file with `images` (uint8, N x 3 x H x W) and `labels`. The script
needs only torch, torchvision and torch-pruning. Every line of its output is a JSON object: `{"done": images}` during
the evaluation and, at the end, the figures or `{"refused": why}`.
"""

from __future__ import annotations

import argparse
import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch_pruning as tp
import torchvision
from torch.utils.data import DataLoader, Dataset
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.transforms import v2

_BATCH = 64
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Refused(Exception):
    """The grader would refuse the zip."""


def read(path: Path) -> tuple[Any, int]:
    """Read the zip; returns (the network in it, the size of its file in bytes)."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "model/mobilenet.pth" not in names:
                raise Refused("holds no model/mobilenet.pth")
            if f"{path.stem}.ipynb" not in names:
                raise Refused(f"holds no {path.stem}.ipynb")
            content = archive.read("model/mobilenet.pth")
    except (zipfile.BadZipFile, OSError) as error:
        raise Refused(f"is not a whole zip file ({error})") from error
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False), len(content)
    except Exception as error:
        raise Refused(f"model/mobilenet.pth does not load ({str(error).splitlines()[0]})") from error


def check(model: Any) -> None:
    """Raise Refused unless the network is a MobileNetV2: the same blocks in the same order, no foreign layer."""
    if type(model) is not MobileNetV2:
        raise Refused(f"model/mobilenet.pth holds a {type(model).__name__}, not a MobileNetV2")
    expected = [(name, type(part)) for name, part in torchvision.models.mobilenet_v2().named_modules()]
    found = [(name, type(part)) for name, part in model.named_modules()]
    for (name, kind), (other, foreign) in zip(expected, found, strict=False):
        if (name, kind) != (other, foreign):
            what = f"{other} ({foreign.__name__}) where {name} ({kind.__name__}) belongs"
            raise Refused(f"no longer a MobileNetV2: {what}")
    if len(found) != len(expected):
        raise Refused(f"no longer a MobileNetV2: {len(found)} modules, not {len(expected)}")


def test_images(where: Path, resolution: int) -> Dataset[Any]:
    """The test images as the grader prepares them: resized with PIL, then normalised."""
    prepare = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize((resolution, resolution)),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize(_MEAN, _STD),
        ]
    )
    if where.is_dir():
        return torchvision.datasets.CIFAR10(str(where), train=False, download=False, transform=prepare)
    given = torch.load(where, weights_only=True)

    class Given(Dataset[Any]):
        def __len__(self) -> int:
            return len(given["labels"])

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            return prepare(v2.functional.to_pil_image(given["images"][i])), int(given["labels"][i])

    return Given()


def accuracy(model: torch.nn.Module, batches: Iterable[Any]) -> float:
    """The share of the images that the network classifies correctly."""
    right = seen = 0
    with torch.no_grad():
        for images, labels in batches:
            right += (model(images).argmax(1) == labels).sum().item()
            seen += len(labels)
            print(json.dumps({"done": seen}), flush=True)
    return right / seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zip", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--resolution", type=int, default=224)
    given = parser.parse_args()
    try:
        model, size = read(given.zip)
        check(model)
        model.eval()
        operations, params = tp.utils.count_ops_and_params(model, torch.zeros(1, 3, 224, 224))
        batches = DataLoader(test_images(given.test, given.resolution), batch_size=_BATCH, drop_last=True)
        reached = accuracy(model, batches)
    except Refused as refused:
        print(json.dumps({"refused": str(refused)}))
        return
    mflops = operations / 1e6
    score = ((200 - mflops) / (200 - 45) - 10 * min(max(0.92 - reached, 0), 1)) * 45
    found = {"mflops": mflops, "params": int(params), "accuracy": reached, "score": score, "size_bytes": size}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
