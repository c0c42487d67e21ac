"""Locks between processes, and which file systems can be trusted with them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_POLL_S = 0.01
_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "gpfs", "beegfs", "pvfs2"}


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Lock the file `path`, created if necessary, for this process. Yields False if it is locked and `wait` is False.

    The kernel releases the lock when the process ends, however it ends. Where nothing can be written, no other process
    can hold the lock either, so it counts as free.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=-1 if wait else 0, mode=0o666)
    try:
        lock.acquire(poll_interval=_POLL_S)
    except Timeout:
        yield False
        return
    except OSError as error:
        if error.errno != errno.EROFS and not isinstance(error, PermissionError):
            raise
        yield True
        return
    try:
        yield True
    finally:
        lock.release()


def network_filesystem(path: Path, mounts: str | None = None) -> str | None:
    """The type of the network file system that `path` is on, such as nfs4; None if it is local or unknown.

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
    `one_machine`: all processes are on this machine, also after a reboot.
    """
    status = folder.stat()
    boot = "" if one_machine else _boot()
    return f"{boot}:{status.st_dev}:{status.st_ino}"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return os.uname().nodename
