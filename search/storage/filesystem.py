"""Locks between processes, and which file systems can be trusted with them."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "pvfs2"}


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the file `path` for this process, made if necessary: True if it was free, or has become so with `wait`.

    The kernel lets go when the process ends, however it does. Where nothing can be written, a file that is not there
    is not made, and counts as free.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        if error.errno != errno.EROFS and not isinstance(error, PermissionError):
            raise
        if not path.exists():
            yield True
            return
        handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def network_filesystem(path: Path, mounts: str | None = None) -> str | None:
    """The type of the network file system that `path` is on, such as nfs4; None on a local one, or where unknown.

    `mounts`: the text of /proc/self/mountinfo, read if not given.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text()
        except OSError:  # not Linux
            return None
    place = Path(os.path.realpath(path))
    deepest, kind = -1, ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        mount = Path(before.split()[4].encode().decode("unicode_escape"))  # a space is written \040
        depth = len(mount.parts)
        if place.is_relative_to(mount) and depth >= deepest:  # of two mounts on one folder, the later one counts
            deepest, kind = depth, after.split()[0]
    name = kind.removeprefix("fuse.")
    return kind if name in _NETWORK or (kind.startswith("fuse.") and name in ("sshfs", "s3fs", "rclone")) else None


def place_of(folder: Path, *, one_machine: bool) -> str:
    """A name for a folder as this machine's kernel sees it.

    Processes with the same place see each other's file locks, so there a free lock proves that its holder is dead.
    `one_machine`: all processes are on this machine, even after it was started anew.
    """
    status = folder.stat()
    boot = "" if one_machine else _boot()
    return f"{boot}:{status.st_dev}:{status.st_ino}"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return os.uname().nodename
