"""Reading a PyTorch file without running any code, neither its own nor that of the packages that it names.

`torch.load(weights_only=True)` makes tensors and plain values. For every other class or function that a file names, an
inert stand-in is registered under that name for the time of loading, so that nothing is imported: an object of such a
class becomes a `StandIn`, which keeps the attributes that were saved and has no behaviour. That takes hyperparameters,
hooks, modules of older versions and wrappers, whatever their package, and none of their code can run.

What cannot run is refused all the same where a file looks as if it should: a class that is rebuilt from its attributes
is data, but a *call* is code, and is let through, inertly, only for the names in `_INERT_CALLS`.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch

from pruner.errors import InputError

_ALONE = "save the network's state_dict() alone"

_INERT_CALLS = frozenset(
    # Each makes a plain value of plain values; here it makes a StandIn, or an empty container, and the value is lost.
    [f"builtins.{name}" for name in ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "range",
                                     "slice", "str", "tuple")]
    + [f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")]
    + [f"{module}.{name}" for module in ("pathlib", "pathlib._local")
       for name in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")]
    + [f"{module}.{name}" for module in ("numpy.core.multiarray", "numpy._core.multiarray")
       for name in ("_reconstruct", "scalar")]
    + ["argparse.Namespace", "collections.defaultdict", "collections.deque", "decimal.Decimal", "fractions.Fraction",
       "numpy.dtype", "numpy.ndarray", "torch._C.Generator", "types.SimpleNamespace", "uuid.UUID"]
    # These two would look something up and call it later on: how bound methods, enum members and configured functions
    # are pickled. Their stand-ins do neither, and what they give cannot be called.
    + ["builtins.getattr", "functools.partial"]
)  # fmt: skip

_MAPPINGS = (
    "collections.defaultdict", "addict.addict.Dict", "easydict.EasyDict", "yacs.config.CfgNode",
    "lightning.fabric.utilities.data.AttributeDict", "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict", "pytorch_lightning.utilities.parsing.AttributeDict",
)  # fmt: skip
"""Subclasses of dict, whose items a pickle sets one by one: torch lets that be done to plain dicts only."""


class _Refused(Exception):
    """The file asks for a call that is not known to be inert; the text is the name of what would be called."""


class _StandInType(type):
    name: str

    def __call__(cls, *arguments: object) -> Any:
        if cls.name not in _INERT_CALLS:
            raise _Refused(cls.name)
        return cls.__new__(cls)  # type: ignore[call-overload]


class StandIn(metaclass=_StandInType):
    """An object of a file, without its class's code."""

    name: ClassVar[str] = ""
    """Its class, or what was called to make it, as the file names it: `package.module.Class`."""
    attributes: dict[str, Any]
    """Those that were saved with it."""

    def __new__(cls, *_arguments: object) -> Any:  # a pickle makes objects by this, or by a call (see above)
        made = object.__new__(cls)
        made.attributes = {}
        return made

    def __setstate__(self, state: object) -> None:
        for part in state if isinstance(state, tuple) else (state,):  # of slotted classes: (attributes, slots)
            if isinstance(part, dict):
                self.attributes.update(part)


class _Mapping(StandIn):
    def __new__(cls, *_arguments: object) -> Any:
        return OrderedDict()


class _List(StandIn):
    def __new__(cls, *_arguments: object) -> Any:
        return []


def read_pickle(path: Path) -> object:
    """What a file of `torch.save` holds, on the CPU: tensors, plain values, containers, and `StandIn`s.

    Raises InputError if it is damaged, or asks for a call that is not known to be inert.
    """
    try:
        names = _names(path)
        stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
            (_stand_in(name), name) for name in names
        ]
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old protocols, which are either read or refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except _Refused as error:
        raise InputError(f"{path}: refused, it would call {error}, which no weights need; {_ALONE}") from None
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: {_reason(str(error))}") from error
    except PermissionError as error:
        raise InputError(f"{path}: may not be read ({error.strerror})") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError,
            AssertionError, zipfile.BadZipFile) as error:  # fmt: skip
        raise InputError(f"{path}: not a whole PyTorch file (truncated or damaged?)") from error


def _stand_in(name: str) -> Callable[..., object]:
    base = _Mapping if name in _MAPPINGS else _List if name == "collections.deque" else StandIn
    return _StandInType(name.rpartition(".")[2], (base,), {"name": name})


def _reason(message: str) -> str:
    """Why torch did not read the file."""
    if "persistent_load" in message:
        return (
            "a whole network in PyTorch's format of before 1.6, which cannot be loaded without running its code; "
            "save it again with a newer PyTorch, or save its state_dict"
        )
    if "_load_from_bytes" in message or "Unsupported operand" in message:
        return "pickled by another program than torch.save, or by a newer pickle protocol; save it by torch.save alone"
    if named := re.search(r"(?:GLOBAL|global:?|class) '?([\w.]+)", message):
        return f"refused, it holds {named[1]}, which no weights need; {_ALONE}"
    return "not a PyTorch file, or a damaged one"


def _names(path: Path) -> set[str]:
    """The classes and functions that a file's pickle may name, as `module.name`; read without unpickling it.

    Bytes that only look like a name do no harm: a stand-in more is registered.
    """
    content = path.read_bytes()
    if content.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    named = re.findall(rb"c([A-Za-z_][\w.]*)\n([A-Za-z_][\w.]*)\n", content)  # the operation GLOBAL
    return {f"{_PYTHON2.get(module, module)}.{name}" for module, name in ((a.decode(), b.decode()) for a, b in named)}


_PYTHON2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Modules that a pickle of torch.save's protocol names as Python 2 did."""
