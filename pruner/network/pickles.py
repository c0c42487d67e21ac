"""Read a PyTorch file without running any code, neither its own nor that of the packages it names.

`torch.load(weights_only=True)` restores tensors and plain values. For every other class or function that a file names,
an inert stand-in is registered under that name during loading, so that nothing is imported. An object of such a class
becomes a `StandIn`, which keeps the saved attributes and has no behaviour. This covers hyperparameters, hooks, modules
of older versions and wrappers, whatever their package, and none of their code can run.

A file that asks for code to run is refused even though the code could not run. A class rebuilt from its attributes is
data, but a *call* is code. Calls are allowed, inertly, only for the names in `_INERT_CALLS`, torch.compile's wrappers,
and members of enums.
"""

from __future__ import annotations

import pickle
import re
import sys
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import torch

from pruner.errors import InputError

_ALONE = "save the network's state_dict() alone"
_NOT_TORCH = "damaged, or not written by torch.save with its default protocol; save its state_dict() with torch.save"

_INERT_CALLS = frozenset(
    # Each makes a plain value from plain values. Here it makes a StandIn or an empty container, and the value is lost.
    [f"builtins.{name}" for name in ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "range",
                                     "slice", "str", "tuple")]
    + [f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")]
    + [f"{module}.{name}" for module in ("pathlib", "pathlib._local")
       for name in ("Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")]
    + [f"{module}.{name}" for module in ("numpy.core.multiarray", "numpy._core.multiarray")
       for name in ("_reconstruct", "scalar")]
    + ["argparse.Namespace", "collections.defaultdict", "collections.deque", "decimal.Decimal", "fractions.Fraction",
       "numpy.dtype", "numpy.ndarray", "torch._C.Generator", "types.SimpleNamespace", "uuid.UUID"]
    # Bound methods, enum members and configured functions are pickled by these two, which look something up and call it
    # later. Their stand-ins do neither, and their results cannot be called.
    + ["builtins.getattr", "functools.partial"]
)  # fmt: skip

_CONTAINER = re.compile(r"Can only (?P<what>SETITEM|append).* but got <class '(?P<name>[\w.]+)'>")
"""torch's message that it fills only plain dicts and lists, not their subclasses."""


class _Refused(Exception):
    """The file asks for a call that is not known to be inert; the text names what would be called."""


class _StandInType(type):
    name: str

    def __call__(cls, *arguments: object) -> Any:
        if not (cls.name in _INERT_CALLS or cls.name.startswith("torch._dynamo.") or _is_enum(cls.name, arguments)):
            raise _Refused(cls.name)
        return cls.__new__(cls, *arguments)  # type: ignore[call-overload]


def _is_enum(name: str, arguments: tuple[object, ...]) -> bool:
    """Does the call have the form of a pickled Enum member: a class called with the member's value?"""
    is_class = name.rpartition(".")[2][:1].isupper() and name.partition(".")[0] not in sys.stdlib_module_names
    return is_class and len(arguments) == 1 and isinstance(arguments[0], int | str)


class StandIn(metaclass=_StandInType):
    """An object from a file, without its class's code."""

    name: ClassVar[str] = ""
    """Its class, or the callable that made it, as the file names it: `package.module.Class`."""
    attributes: dict[str, Any]
    """The attributes saved with it."""
    arguments: tuple[object, ...]
    """The arguments it was made from, if it was made by a call."""

    def __new__(cls, *arguments: object) -> Any:  # a pickle makes objects by this, or by a call (see above)
        made = object.__new__(cls)
        made.arguments, made.attributes = arguments, {}
        return made

    def __setstate__(self, state: object) -> None:
        for part in state if isinstance(state, tuple) else (state,):  # slotted classes: (attributes, slots)
            if isinstance(part, dict):
                self.attributes.update(part)


class _Mapping(StandIn):
    def __new__(cls, *_arguments: object) -> Any:
        return OrderedDict()


class _List(StandIn):
    def __new__(cls, *_arguments: object) -> Any:
        return []


def read_pickle(path: Path) -> object:
    """Read a file of `torch.save`, on the CPU, as tensors, plain values, containers, and `StandIn`s.

    Raises InputError if the file is damaged or asks for a call that is not known to be inert.
    """
    bases: dict[str, type[StandIn]] = {}
    while True:
        try:
            stand_ins: list[Any] = [
                (_stand_in(today, bases.get(today, StandIn)), name) for name, today in _names(path).items()
            ]
            with (
                torch.serialization.safe_globals(stand_ins),
                path.open("rb") as file,  # from a path, torch would choose by the suffix
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")  # about old protocols, which are either read or refused
                return torch.load(file, map_location="cpu", weights_only=True)
        except _Refused as error:
            raise InputError(f"{path}: {_call(str(error))}") from None
        except pickle.UnpicklingError as error:
            container = _CONTAINER.search(str(error))
            if container is None or container["name"] in bases:
                raise InputError(f"{path}: {_reason(str(error))}") from error
            bases[container["name"]] = _List if container["what"] == "append" else _Mapping
        except PermissionError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        except Exception as error:  # torch reports damaged content in many ways
            raise InputError(f"{path}: not a whole PyTorch file (truncated or damaged?)") from error


def _stand_in(name: str, base: type[StandIn]) -> _StandInType:
    module, _, own_name = name.rpartition(".")
    return _StandInType(own_name, (base,), {"name": name, "__module__": module})


def _call(name: str) -> str:
    """Why a file that would call `name` is refused."""
    if name == "torch.storage._load_from_bytes":
        return _NOT_TORCH
    return f"refused, it would call {name}, which no weights need; {_ALONE}"


def _reason(message: str) -> str:
    """Explain in the user's terms why torch did not read the file."""
    if "persistent_load" in message:
        return (
            "a whole network in PyTorch's format from before 1.6, which cannot be loaded without running its code; "
            "save it again with a newer PyTorch, or save its state_dict"
        )
    if "_load_from_bytes" in message or "Unsupported operand" in message:
        return _NOT_TORCH
    if "call reduce" in message:
        return f"refused, it would call what it looks up, which no weights need; {_ALONE}"
    if named := re.search(r"(?:GLOBAL |<class ')([\w.]+)", message):
        return f"refused, it holds {named[1]}, which no weights need; {_ALONE}"
    return "not a PyTorch file, or a damaged one"


def _names(path: Path) -> dict[str, str]:
    """The classes and functions that a file's pickle may name: `module.name` as in the file -> its current name.

    The pickle is searched, not run. Bytes that only look like a name are harmless: they register one more stand-in.
    """
    content = path.read_bytes()
    if content.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            content = b"".join(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    # The GLOBAL opcode. Matches may overlap, since any byte before a name can look like the opcode.
    named = re.findall(rb"(?=c([A-Za-z_][\w.]*)\n([A-Za-z_][\w.]*)\n)", content)
    found: dict[str, str] = {}
    for module, name in ((module.decode(), name.decode()) for module, name in named):
        # torch.save's protocol uses Python 2's names for the standard library; torch translates some of them back.
        today = ".".join(NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name)))
        found |= {f"{module}.{name}": today, today: today}
    return found
