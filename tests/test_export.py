"""What leaves the program, and how files are written."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.channels.importance import score_channels
from pruner.channels.plan import apply_plan, make_plan
from pruner.errors import InputError
from pruner.exports.module import export_module
from pruner.measurement.measure import size_bytes
from pruner.network.loading import load_network
from pruner.network.structure import STAGES
from pruner.recipe import Prune
from pruner.system.checkpoint import load_state, save_state
from pruner.system.files import read_json, write_json, write_whole

# What the course's grader does, in a process where this project's packages cannot be imported.
GRADER = """
import sys
sys.modules["pruner"] = sys.modules["search"] = sys.modules["torch_pruning"] = None
import torch, torchvision
model = torch.load(sys.argv[1], weights_only=False)
assert type(model).__module__.startswith("torchvision."), type(model)
print(float(model(torch.ones(1, 3, 64, 64)).sum()))
"""


@pytest.mark.slow
def test_an_export_loads_where_only_torch_and_torchvision_are(dense: MobileNetV2, tmp_path: Path) -> None:
    prune = Prune(pruning_ratio=dict.fromkeys(STAGES, 0.7))
    pruned = apply_plan(dense, make_plan(dense, prune, score_channels(dense, "l2")))
    path = tmp_path / "mobilenet.pth"
    written = export_module(pruned.train(), path)
    assert written == path.stat().st_size == size_bytes(pruned)
    assert pruned.training
    out = subprocess.run([sys.executable, "-c", GRADER, str(path)], capture_output=True, text=True, cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    expected = load_network(path)(torch.ones(1, 3, 64, 64)).sum().item()
    assert float(out.stdout) == pytest.approx(expected, rel=1e-4)


def test_a_network_that_is_no_longer_mobilenetv2_is_not_exported(dense: MobileNetV2, tmp_path: Path) -> None:
    import copy

    changed = copy.deepcopy(dense)
    changed.features[0][2] = torch.nn.ReLU()
    with pytest.raises(InputError, match="no longer a MobileNetV2"):
        export_module(changed, tmp_path / "mobilenet.pth")
    assert not list(tmp_path.iterdir())


def test_files_are_whole_or_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    constraints = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, constraints[1]))  # as on a full disk: the write breaks off
    try:
        with pytest.raises(OSError, match=r"too large.*value\.json"):
            write_whole(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, constraints)
    assert read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["value.json"]


def test_states_come_back_and_damaged_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    assert load_state(path) is None
    save_state(path, {"epoch": 2, "weights": torch.arange(3)})
    assert load_state(path)["weights"].tolist() == [0, 1, 2]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"state\.pt"):
        load_state(path)
