"""Detect a file's kind from its content, not its name: PyTorch, safetensors, or what people give by mistake."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import BinaryIO, Literal

from pruner.errors import InputError

_HEAD = 4096
"""How many bytes at the start of a file are inspected."""
_MOST_FIELDS = 100_000
_GIVE = "give a .pth or .safetensors file with a MobileNetV2's weights"
_UNPACK = "unpack it and give the .pth or .safetensors file in it"
_ORIGINAL = "it cannot be turned back into a network here: give the .pth file that it was made from"

_ONNX = ("an ONNX model", _ORIGINAL)

_MAGIC: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ\x00", "an xz archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it", _GIVE),
    (4, b"TFL3", "a TensorFlow Lite model", _GIVE),
    (4, b"ET1", "an ExecuTorch program", _ORIGINAL),
    (0, b"GGUF", "a GGUF file", _GIVE),
    (0, b"\x93NUMPY", "a NumPy array", _GIVE),
    (0, b"SQLite format 3\x00", "an SQLite database", _GIVE),
    (0, b"%PDF", "a PDF document", _GIVE),
    (0, b"\x89PNG", "an image", _GIVE),
    (0, b"\xff\xd8\xff", "an image", _GIVE),
    (0, b"\x7fELF", "a program or a library", _GIVE),
)
"""(offset, the magic bytes at it, what such a file is, what to do)."""

_ONNX_FIELDS = {1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26}
"""The field numbers of ONNX's ModelProto (onnx.proto); 1 is the format version, 7 the graph."""


def weights_format(path: Path) -> Literal["torch", "safetensors"]:
    """Which reader to use for the file. An unknown kind goes to torch's reader, which refuses it.

    Raises InputError, saying what the file is and what to do, if it is a kind known to hold no weights.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path}: {_folder(path)}")
        if not path.is_file():
            raise InputError(f"{path}: no such file; {_GIVE}")
        with path.open("rb") as file:
            head = file.read(_HEAD)
            found = _foreign(path, head, file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if found:
        raise InputError(f"{path}: is {found[0]}; {found[1]}")
    if head[8:9] == b"{" and not head.startswith(b"\x80"):  # the header's length, then the header in JSON
        return "safetensors"
    is_torch = head.startswith((b"PK\x03\x04", b"\x80"))  # a ZIP of a pickle and its tensors, or a bare pickle
    return "safetensors" if path.suffix == ".safetensors" and not is_torch else "torch"


def is_onnx(path: Path) -> bool:
    """Does the file look like an ONNX model? False if there is no such file, or it cannot be read."""
    try:
        with path.open("rb") as file:
            return _protobuf(file) == _ONNX
    except OSError:
        return False


def _folder(path: Path) -> str:
    names = sorted(child.name for child in path.iterdir())
    if "saved_model.pb" in names:
        return f"is a TensorFlow SavedModel; {_GIVE}"
    if ".metadata" in names:
        convert = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER NEW_FILE"
        return f"is a torch.distributed checkpoint; convert it to a file: {convert}"
    if "data.pkl" in names:
        return "is a PyTorch file that was unpacked into a folder; give the .pth file itself"
    weights = [name for name in names if name.endswith((".pth", ".pt", ".bin", ".ckpt", ".safetensors"))]
    return f"is a folder, not a file; {f'give a file in it, as {path / weights[0]}' if weights else _GIVE}"


def _foreign(path: Path, head: bytes, file: BinaryIO) -> tuple[str, str] | None:
    """(what the file is, what to do), if it is a kind known to hold no weights."""
    if not head:
        return "empty", "its download or writing was interrupted; get it again"
    for offset, magic, what, remedy in _MAGIC:
        if head[offset:].startswith(magic):
            return what, remedy
    if head.startswith(b"PK"):
        return _archive(path)
    return _text(head) or _protobuf(file)


def _archive(path: Path) -> tuple[str, str] | None:
    """What a ZIP archive is; None if torch.save wrote it or it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return None
    if any("/code/" in name for name in names):
        return "a TorchScript program", "save its weights: torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
    if any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
        return "a torch.export program", "save its weights: torch.save(torch.export.load(FILE).state_dict, NEW_FILE)"
    if any(name.endswith("data.pkl") for name in names):
        return None
    if any(name.endswith("model.weights.h5") for name in names):
        return "a Keras model", _GIVE
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays", "convert them to tensors and save those with torch.save"
    return f"a ZIP archive ({', '.join(names[:2]) or 'empty'}{', ...' if len(names) > 2 else ''})", _UNPACK


def _text(head: bytes) -> tuple[str, str] | None:
    """What a text file is; None for binary content."""
    if head[0] >= 0x80 and not head.startswith(b"\xef\xbb\xbf"):  # a pickle starts with such a byte, text never does
        return None
    if any(byte < 0x20 and byte not in b"\t\n\r\f" for byte in head):
        return None
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(b"<!doctype html") or (start.startswith(b"<") and b"<html" in start):
        return "an HTML page, not the file itself", "the server answered with a login or an error: download it again"
    if start.startswith(b"<"):
        return "an XML file", _GIVE
    return "a JSON file" if start.startswith((b"{", b"[")) else "a text file", _GIVE


def _protobuf(file: BinaryIO) -> tuple[str, str] | None:
    """Recognise ONNX and TensorFlow, which have no magic number, by the top-level fields of the message."""
    fields = _fields(file)
    numbers = {number for number, _ in fields}
    if fields[:1] == [(1, 0)] and (7, 2) in fields and numbers <= _ONNX_FIELDS:
        return _ONNX
    # SavedModel: a version, then graphs. GraphDef: nodes, then versions, and optionally a library.
    if set(fields) == {(1, 0), (2, 2)} or set(fields) in ({(1, 2), (4, 2)}, {(1, 2), (2, 2), (4, 2)}):
        return "a TensorFlow graph", _GIVE
    return None


def _fields(file: BinaryIO) -> list[tuple[int, int]]:
    """(number, wire type) of the top-level fields, up to the first byte that is not valid Protocol Buffers."""
    found: list[tuple[int, int]] = []
    file.seek(0)
    while len(found) < _MOST_FIELDS and (key := _varint(file)) is not None:
        number, wire = key >> 3, key & 7
        length = {0: 0, 1: 8, 2: None, 5: 4}.get(wire, -1)
        if wire in (0, 2):
            value = _varint(file)
            length = None if value is None else value if wire == 2 else 0
        if number == 0 or length is None or length < 0:
            break
        found.append((number, wire))
        file.seek(length, 1)
    return found


def _varint(file: BinaryIO) -> int | None:
    """Read an integer stored in groups of seven bits, lowest first; None at the end of the file or if invalid."""
    value = 0
    for place in range(0, 63, 7):
        if not (byte := file.read(1)):
            return None
        value |= (byte[0] & 0x7F) << place
        if byte[0] < 0x80:
            return value
    return None
