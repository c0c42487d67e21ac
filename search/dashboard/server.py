"""The dashboard of a study: optuna-dashboard on its database, with its artifacts, behind access control."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import waitress
from optuna.artifacts import FileSystemArtifactStore

from pruner.errors import InputError
from search.dashboard.artifacts import DashboardArtifacts
from search.dashboard.auth import PASSWORD_VARIABLE, Auth, is_loopback, read_password
from search.options import Web
from search.storage.artifacts import Shared
from search.storage.folder import StudyFolder
from search.storage.studies import Store
from search.study.spec import StudySpec

_THREADS = 8
_LARGEST_UPLOAD = 128 * 2**20


@contextmanager
def dashboard(shared: Shared, spec: StudySpec, folder: StudyFolder, study_file: Path, web: Web) -> Iterator[str]:
    """Serve the dashboard from threads of this process while the block runs; yields the address of the study's page.

    Raises InputError if other machines could reach it without a password, or if it cannot listen at the address.
    """
    # A second to load, with scikit-learn and pandas, which every `run` and `status` would wait for.
    import optuna_dashboard

    from search.dashboard.sync import Sync

    password = read_password(web.password_file)
    if password is None and not is_loopback(web.host):
        raise InputError(
            f"--host {web.host}: without a password others could delete the study; give one with --password-file or "
            f"{PASSWORD_VARIABLE}"
        )
    # Several threads handle requests, so the server needs its own connections.
    storage = shared.store.database.storage_for_threads()
    study = optuna.load_study(storage=storage, study_name=spec.name)
    here = Shared(Store(study, shared.store.database), shared.artifacts, shared.prefix)
    read_only = shared.store.database.read_only
    uploads = folder.path / "uploads"
    if folder.path.exists() and not read_only:
        uploads.mkdir(exist_ok=True)
    store = DashboardArtifacts(here, folder, FileSystemArtifactStore(uploads))
    app = Auth(optuna_dashboard.wsgi(storage, artifact_store=store), password, web.read_only or read_only)
    try:
        server = waitress.create_server(
            app, host=web.host, port=web.port, threads=_THREADS, ident=None,
            max_request_body_size=_LARGEST_UPLOAD, clear_untrusted_proxy_headers=True,
        )  # fmt: skip
    except OSError as error:
        raise InputError(
            f"--host {web.host} --port {web.port}: cannot listen there ({error.strerror}); --port 0 takes a free one"
        ) from error
    serving = threading.Thread(target=server.run, name="dashboard", daemon=True)
    sync = Sync(study, spec, str(study_file))
    if not read_only:
        sync.start()
    serving.start()
    try:
        host = f"[{web.host}]" if ":" in web.host else web.host
        yield f"http://{host}:{server.effective_port}/dashboard/studies/{study._study_id}"
    finally:
        if not read_only:
            sync.end()
        server.close()
        serving.join(timeout=0.5)
