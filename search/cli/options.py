"""Options that several commands share."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pruner.data.known import NAMES, SMALL
from search.options import Options, Web
from search.study.changes import parse

F = TypeVar("F", bound=Callable[..., None])


class Number(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class DataSet(click.ParamType[str]):
    """A data set's name, or a folder of images. A name counts first; ./NAME is the folder."""

    name = "NAME|DIR"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in NAMES and not Path(value).exists():
            self.fail(f"{value!r} is neither one of {', '.join(SMALL)} nor a folder of images.", param, ctx)
        return str(value)


study_argument = click.argument("study", type=click.Path(path_type=Path))
runs_option = click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, envvar="PRUNE_SEARCH_RUNS",
    help="Folder that holds one folder for every study.",
)  # fmt: skip
storage_option = click.option(
    "--storage", metavar="URL", envvar="PRUNE_SEARCH_STORAGE",
    help="The study's database, e.g. postgresql://user@host/name (default: PRUNE_SEARCH_STORAGE, then SQLite in the "
    "study's folder). Put a password into the variable or PGPASSWORD rather than here.",
)  # fmt: skip
artifacts_option = click.option(
    "--artifacts", metavar="WHERE", envvar="PRUNE_SEARCH_ARTIFACTS",
    help="Where machines share the trials' files: a folder that all can reach, or s3://bucket/prefix.",
)  # fmt: skip
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object for scripts instead of text.")
data_root_option = click.option(
    "--data-root", type=click.Path(path_type=Path),
    help="Folder that holds the data set: cifar-10-batches-py (default: CIFAR10_ROOT, then a cache folder; downloaded "
    "if absent), or a study's own images.",
)  # fmt: skip
data_option = click.option(
    "--data", "name", type=DataSet(), default="cifar10", show_default=True,
    help=f"The data set: {', '.join(SMALL)}; or a folder of images, train/CLASS/IMAGE with val and test, or "
    "CLASS/IMAGE.",
)  # fmt: skip
resolution_option = click.option(
    "--resolution", type=click.IntRange(8, 2048), default=224, show_default=True, help="Pixels a side."
)
trial_option = click.option("--trial", type=click.IntRange(min=0), help="Which trial (default: the best by score).")
dense_option = click.option(
    "--dense", type=click.Path(path_type=Path), help="A finished dense network (.pth) to prune."
)


set_option = click.option(
    "--set", "changes", metavar="KEY=VALUE", multiple=True, callback=lambda _ctx, _param, texts: [*map(parse, texts)],
    help="Change a key of the file, as in --set train.epochs=4; may be repeated. The study keeps the changes that "
    "it is begun with.",
)  # fmt: skip
grace_period_option = click.option(
    "--grace-period", type=Number(min=1), default=60.0, show_default=True,
    help="Seconds of silence after which a worker on another machine counts as dead.",
)  # fmt: skip


def machine_options(function: F) -> F:
    """--threads and --device."""
    threads = click.option(
        "--threads", type=click.IntRange(0, 1024), default=0, help="Cores that each worker uses; 0: all."
    )
    device = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 ...")
    return threads(device(function))


Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def _packed(kind: type[Options] | type[Web], argument: str, *decorators: Decorator) -> Decorator:
    """Pass a command's options as one value of `kind`; fields without an option keep their defaults."""
    names = [field.name for field in dataclasses.fields(kind)]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**values: Any) -> None:
            value = kind(**{name: values.pop(name) for name in names if name in values})
            function(**{argument: value}, **values)

        decorated: Callable[..., None] = command
        for decorator in reversed(decorators):
            decorated = decorator(decorated)
        return decorated

    return decorate


_where = (data_root_option, runs_option, storage_option, artifacts_option, machine_options)
options = _packed(Options, "options", dense_option, *_where, grace_period_option)
"""Options of a command that runs trials."""
result_options = _packed(Options, "options", *_where)
"""Options of a command that uses a finished trial."""
web_options = _packed(
    Web,
    "web",
    click.option(
        "--host", default="127.0.0.1", show_default=True,
        help="Address to listen on; any but this machine's loopback address needs a password.",
    ),
    click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free port."),
    click.option(
        "--password-file", type=click.Path(path_type=Path),
        help="File with the password that browsers must send (with any user name); or set PRUNE_SEARCH_PASSWORD.",
    ),
    click.option("--read-only", is_flag=True, help="Refuse every request that would make a change."),
)  # fmt: skip
"""Options of a command that shows the dashboard."""
