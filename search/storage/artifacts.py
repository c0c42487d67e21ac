"""Share a study's files between machines: in an artifact store, beside the folder on each machine.

The database has the name of each file in the store. It gets a name only after the file is written, so the files that it
names are whole. Without a store, the folders themselves must be shared, or each machine has only its own trials' files.
"""

from __future__ import annotations

import contextlib
import io
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Protocol

from optuna.artifacts import Boto3ArtifactStore, FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial

from pruner.errors import InputError
from pruner.system.extras import has
from pruner.system.files import insist, read_object, write_json, write_whole
from search.storage.folder import StudyFolder
from search.storage.leases import Lost
from search.storage.studies import Store
from search.storage.trial_folder import SHARED_FILES, TrialFolder

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_FILES = "prune_search:files:"
"""Followed by the number of a lease."""
_DENSE_FILE = "dense_file"


class ArtifactStore(Protocol):
    """The interface of Optuna's artifact stores (`optuna.artifacts`)."""

    def open_reader(self, artifact_id: str) -> BinaryIO: ...

    def write(self, artifact_id: str, content_body: BinaryIO) -> None: ...

    def remove(self, artifact_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Shared:
    """The files of a study that all its machines can reach."""

    store: Store
    artifacts: ArtifactStore | None
    prefix: str = ""

    def trial_folder(
        self, folder: StudyFolder, trial: Trial, lease: int, is_mine: Callable[[], bool], *, fetch: bool
    ) -> TrialFolder:
        """The trial's folder on this machine, whose files are copied to the store as they are written.

        `lease`: numbers the trial's leases, and what a worker writes is kept under its own: one that slept does not
        overwrite what those after it wrote. `is_mine`: is the trial still this worker's? If not, saving a file raises
        Lost. `fetch`: first copy the trial's files from the store.
        """
        here = folder.trial(trial.number)
        if self.artifacts is None:
            return here
        frozen = self.store.database.storage.get_trial(trial._trial_id)
        if fetch:
            self._fetch(here, frozen)
        names = _names(frozen)
        # In a database built anew leases begin at 0 again, while trials know what was written under the old numbers.
        key = max([f"{_FILES}{lease:012}", *_written(frozen)])
        return replace(here, on_saved=lambda path: self._keep(path, trial, names, key, is_mine))

    def finished_folder(self, folder: StudyFolder, trial: FrozenTrial) -> TrialFolder | None:
        """The folder of a finished trial with its files in it; None if they cannot be reached."""
        here = folder.trial(trial.number)
        if not here.is_finished and self.artifacts is not None:
            self._fetch(here, trial)
        return here if here.is_finished else None

    def dense(self, folder: StudyFolder) -> Path | None:
        """The dense network that the study's first machine put into the store; None if there is none."""
        name = self.store.study.user_attrs.get(_DENSE_FILE)
        if self.artifacts is None or name is None:
            return None
        path = folder.dense / name.rsplit("/", 1)[-1]
        if not path.exists():
            write_whole(path, self._read(name))
        return path

    def save_dense(self, path: Path, key: str) -> None:
        """Put the study's dense network into the store, if that is not done yet."""
        if self.artifacts is None or self.store.study.user_attrs.get(_DENSE_FILE) is not None:
            return
        name = f"{self.prefix}{self.store.study.study_name}-dense-{key}-{uuid.uuid4().hex[:12]}.pth"  # as in `_keep`
        self._write(name, path)
        self.store.study.set_user_attr(_DENSE_FILE, name)

    def _keep(self, path: Path, trial: Trial, names: dict[str, str], key: str, is_mine: Callable[[], bool]) -> None:
        assert self.artifacts is not None
        unique = uuid.uuid4().hex[:12]  # a file is never overwritten: its readers can go on reading it
        name = f"{self.prefix}{trial.study.study_name}-{trial.number:04}-{unique}-{path.name}"
        self._write(name, path)
        before = names.get(path.name)
        names[path.name] = name
        storage = self.store.database.storage

        def tell() -> None:
            if not is_mine():
                raise Lost
            try:
                storage.set_trial_system_attr(trial._trial_id, key, names)
            except UpdateFinishedTrialError:
                raise Lost from None

        try:
            self.store.database.patiently(tell, _silently)
        except Lost:
            self._remove(name)
            raise
        write_json(path.parent / SHARED_FILES, names)
        if before is not None:
            self._remove(before)

    def _write(self, name: str, path: Path) -> None:
        artifacts, content = self.artifacts, path.read_bytes()
        assert artifacts is not None

        def write() -> None:
            try:
                artifacts.write(name, io.BytesIO(content))
            except OSError:  # a store that is a folder: the disk may be full
                self._remove(name)
                raise

        insist(write)

    def _fetch(self, here: TrialFolder, trial: FrozenTrial) -> None:
        names = _names(trial)
        present = read_object(here.path / SHARED_FILES)
        for file, name in names.items():
            if present.get(file) != name or not (here.path / file).exists():
                here.path.mkdir(parents=True, exist_ok=True)
                write_whole(here.path / file, self._read(name))
        if names:
            write_json(here.path / SHARED_FILES, names)

    def _read(self, name: str) -> bytes:
        assert self.artifacts is not None
        try:
            with self.artifacts.open_reader(name) as file:
                return file.read()
        except ArtifactNotFound:
            raise InputError(f"--artifacts: {name} is not in the store; name the one the study began with") from None

    def _remove(self, name: str) -> None:
        assert self.artifacts is not None
        with contextlib.suppress(ArtifactNotFound):
            self.artifacts.remove(name)


def _names(trial: FrozenTrial) -> dict[str, str]:
    """File -> its name in the store, as the last worker that wrote any left them."""
    written = _written(trial)
    return dict(trial.system_attrs[max(written)]) if written else {}


def _written(trial: FrozenTrial) -> list[str]:
    return [key for key in trial.system_attrs if key.startswith(_FILES)]


def artifact_store(where: str | None, *, create: bool = False) -> tuple[ArtifactStore | None, str]:
    """(the store, the prefix of its names) for a folder or `s3://bucket/prefix`; (None, "") for None.

    `create`: make the folder if necessary; without it, the folder must exist.

    Raises InputError for a folder that cannot be used, an unknown kind of store, or a driver that is not installed.
    """
    if where is None:
        return None, ""
    kind, separator, rest = where.partition("://")
    if not separator:
        if not create and not Path(where).is_dir():
            raise InputError(f"--artifacts {where}: no such folder; give the one that the study was begun with")
        try:
            Path(where).mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a NUL in it
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            raise InputError(f"--artifacts: the folder cannot be used ({reason})") from error
        return FileSystemArtifactStore(where), ""
    bucket, _, prefix = rest.partition("/")
    if kind.lower() != "s3" or not _BUCKET.fullmatch(bucket):  # the text may contain a key: none of it is shown
        raise InputError(
            "--artifacts: give a folder, or s3://bucket/prefix; keys belong in AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, another server's address in AWS_ENDPOINT_URL"
        )
    if not has("boto3"):
        raise InputError("--artifacts: S3 needs a driver: pip install 'prune-search[s3]'")
    return Boto3ArtifactStore(bucket), f"{prefix.strip('/')}/" if prefix.strip("/") else ""


def _silently(_text: str) -> None:
    pass
