"""What leaves the program."""

from __future__ import annotations

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
