"""What a worker needs before its first trial: device, database, data, dense network."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from pruner.network.loading import load_dense
from pruner.system.extras import need
from pruner.system.files import read_json, write_json
from pruner.system.machine import prepare
from search.database.address import study_url
from search.options import Options
from search.results.records import Dense
from search.storage.artifacts import Shared, artifact_store
from search.storage.folder import StudyFolder
from search.storage.studies import Store, bind_data, bind_dense, open_study
from search.study.spec import StudySpec
from search.terminal.progress import Progress
from search.trial.context import Context, open_context
from search.trial.data import has_same_data, open_data
from search.trial.dense import given_file
from search.trial.parent import check_parents


@dataclass(frozen=True, slots=True)
class Setup:
    """A study that is ready for its trials."""

    store: Store
    context: Context
    shared: Shared


def tell_dense(store: Store, folder: StudyFolder, key: str, dense: Dense) -> None:
    """Write down which dense network the study prunes. Raises InputError if it was begun with another."""
    bind_dense(store, key, dense)
    figures = {"key": key, "figures": asdict(dense)}
    if read_json(folder.dense_figures) != figures:
        write_json(folder.dense_figures, figures)


def set_up(
    spec: StudySpec, folder: StudyFolder, options: Options, progress: Progress, before: Setup | None = None,
    *, settled: bool = False,
) -> Setup:  # fmt: skip
    """Open everything; train the dense network first if there is none yet.

    `before`: the part before it. Its data set and dense network serve again where this study would load the same.
    `settled`: a part after it has begun, so the networks that it started from need not be there any more.

    Raises InputError. Checks that are possible before any file of the study is written come first.
    """
    device = prepare(options.threads, options.device)
    study_url(options.storage, folder.database)
    if spec.latency.backend == "onnxruntime":
        need("onnxruntime", "latency by onnxruntime", "onnx")
    known = before.context if before and has_same_data(spec, before.context.spec) else None
    data = open_data(spec, folder, options, device, progress, known.data if known else None)
    if not settled:
        check_parents(spec, folder, data.classes)
    given = given_file(spec, options.dense)
    loaded = known.dense if known and known.dense_file == given else None
    if loaded is None and given is not None:
        loaded = load_dense(given, data.classes)
    artifacts = artifact_store(options.artifacts, create=True)
    folder.create()
    store = open_study(spec, folder, options.storage)
    if data.fingerprint:
        bind_data(store, data.name, data.fingerprint)
    shared = Shared(store, *artifacts)
    path = options.dense if given is not None else shared.dense(folder)
    context = open_context(spec, folder, data, path, loaded, progress)
    tell_dense(store, folder, context.dense_hash, context.dense_figures)
    shared.save_dense(context.dense_file, context.dense_hash)
    return Setup(store, context, shared)
