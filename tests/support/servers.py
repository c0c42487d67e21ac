"""Real servers for tests, on loopback, in folders of their own; a real disk that can be full."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's server programs; Debian keeps it out of PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    return next((path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None)


class Postgres:
    """A PostgreSQL server; it refuses to run as root, so root runs it as the user that Debian's package makes."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._user = "postgres" if os.getuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="prune-search-postgres-"))
        if self._user:
            os.chown(self.folder, pwd.getpwnam(self._user).pw_uid, -1)
        self.port = free_port()
        self._run("initdb", "-D", "data", "-U", "tester", "--auth=trust", "--no-sync")
        self.start()

    def url(self, database: str) -> str:
        """A new, empty database on the server."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "tester", database)
        return f"postgresql://tester@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-l", "log", "-o", options, "-w", "start")

    def stop(self) -> None:
        """Stop the server as a restart does: connections are cut."""
        self._run("pg_ctl", "-D", "data", "-m", "fast", "-w", "stop")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments], cwd=self.folder, user=self._user,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


class Disk:
    """A file system of its own, in memory. Needs the right to mount: `may_mount`."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        folder.mkdir()
        self.folder, self._options = folder, f"size={megabytes}m"
        _mount("-t", "tmpfs", "-o", self._options, "none", folder)

    def fill(self) -> None:
        """From now on it is as large as what it holds."""
        while True:
            usage = os.statvfs(self.folder)
            full = f"size={max(4096, (usage.f_blocks - usage.f_bfree) * usage.f_frsize)}"  # 0: no limit
            try:
                _mount("-o", f"remount,{full}", self.folder)
            except OSError:  # somebody wrote something meanwhile
                continue
            return

    def empty(self) -> None:
        """There is space again."""
        _mount("-o", f"remount,{self._options}", self.folder)

    def remove(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)


def _mount(*arguments: object) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise OSError(done.stderr.strip())


def may_mount(folder: Path) -> bool:
    """Is this process allowed to mount a file system?"""
    try:
        Disk(folder, 1).remove()
    except OSError:
        return False
    return True
