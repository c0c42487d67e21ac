"""Classify image files with a network in any format that can be loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pruner.data.batches import normalized
from pruner.data.decoding import read_image
from pruner.data.known import SMALL
from pruner.errors import InputError
from pruner.exports.int8 import SUFFIX
from pruner.system.files import read_object
from search.models.network import Network
from search.terminal.progress import Progress

_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """A class, and how probable the network holds it."""

    number: int
    name: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """The most probable classes of an image, the first first."""

    image: str
    top: tuple[Guess, ...]


def class_names(model: Path, count: int, given: str | None, data: str | None) -> tuple[str, ...]:
    """The names of a network's classes.

    Args:
        model: The network's file. The card that `export` wrote beside it names its classes, or the data set.
        count: How many classes it has.
        given: A file with a name a line, or the names with commas between them. It takes precedence.
        data: The data set that the network was trained on. It takes precedence over the card.

    Returns:
        The names; `class 0` and so on if nothing tells them.

    Raises:
        InputError: There are more or fewer names than classes.
    """
    if given is not None:
        names, where = _given(given), "--classes"
    elif data is not None:
        names, where = SMALL[data].class_names, f"--data {data}"
    else:
        card = _card_of(model)
        names, where = _on_card(card), str(card)
    if names and len(names) != count:
        raise InputError(f"{where}: names {len(names)} classes, {model} has {count}; give as many with --classes")
    return names or tuple(f"class {number}" for number in range(count))


def _given(given: str) -> tuple[str, ...]:
    path = Path(given)
    if "," not in given or path.is_file():
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise InputError(
                f"--classes {given}: cannot be read ({reason}); give a file with a name a line, or names with commas "
                "between them"
            ) from error
        return tuple(line.strip() for line in lines if line.strip())
    return tuple(name.strip() for name in given.split(","))


def card_resolution(model: Path) -> int | None:
    """Pixels a side of the images that a network is for, as the card beside it says; None if there is none."""
    data = read_object(_card_of(model)).get("data")
    resolution = data.get("resolution") if isinstance(data, dict) else None
    return resolution if isinstance(resolution, int) and 8 <= resolution <= 2048 else None


def _card_of(model: Path) -> Path:
    stem = model.name.removesuffix(SUFFIX) if model.name.endswith(SUFFIX) else model.stem
    return model.with_name(f"{stem}.json")


def _on_card(path: Path) -> tuple[str, ...]:
    card = read_object(path)
    names = card.get("class_names")
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def predict(
    network: Network, images: Sequence[Path], names: Sequence[str], *, resolution: int, top: int,
    progress: Progress,
) -> list[Prediction]:  # fmt: skip
    """The `top` most probable classes of every image. All are read before any is classified.

    Raises InputError, naming every file that is no image.
    """
    read: list[Tensor] = []
    bad: list[InputError] = []
    with progress.task("reading", len(images)) as bar:
        for path in images:
            try:
                read.append(read_image(path, resolution))
            except InputError as error:
                bad.append(error)
            bar.advance()
    if bad:
        raise InputError("; ".join(str(error) for error in bad))
    found: list[Prediction] = []
    with progress.task("classifying", len(images)) as bar, torch.inference_mode():
        for start in range(0, len(read), _BATCH):
            part = torch.stack(read[start : start + _BATCH])
            probabilities, numbers = network.classify(normalized(part)).softmax(1).topk(min(top, len(names)))
            for path, those, probable in zip(
                images[start : start + _BATCH], numbers.tolist(), probabilities.tolist(), strict=True
            ):
                guesses = (
                    Guess(number=number, name=names[number], probability=round(probability, 6))
                    for number, probability in zip(those, probable, strict=True)
                )
                found.append(Prediction(image=str(path), top=tuple(guesses)))
            bar.advance(len(part))
    return found


def text(predictions: Sequence[Prediction]) -> str:
    """A block for each image: its name, and a line for each class."""
    return "\n".join(
        "\n".join([one.image, *(f"{guess.probability:8.2%}  {guess.name}" for guess in one.top)])
        for one in predictions
    )  # fmt: skip
