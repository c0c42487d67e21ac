"""Loading networks: whatever the file, its code is not run and only a MobileNetV2 comes out."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2, resnet18
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.errors import InputError
from pruner.network.loading import load_dense, load_network
from pruner.network.mobilenet import architecture_difference, fresh, widths
from pruner.network.structure import GROUPS


def test_groups_name_every_width_of_the_network(dense: MobileNetV2) -> None:
    assert len(GROUPS) == 17 + 7 + 1
    found = widths(dense)
    assert [found[f"stage{i}.output"] for i in range(1, 8)] == [16, 24, 32, 64, 96, 160, 320]
    assert [found[f"stage{s}.hidden.{b}"] for s, b in ((1, 1), (2, 2), (2, 3), (7, 17))] == [32, 96, 144, 960]
    assert found["head"] == 1280


@pytest.mark.parametrize("what", ["module", "state_dict", "wrapped", "data_parallel"])
def test_modules_and_state_dicts_of_any_widths_load(narrow: MobileNetV2, tmp_path: Path, what: str) -> None:
    state = narrow.state_dict()
    content = {
        "module": narrow,
        "state_dict": state,
        "wrapped": {"state_dict": state, "epoch": 3},
        "data_parallel": {f"module.{name}": value for name, value in state.items()},
    }[what]
    torch.save(content, tmp_path / "network.pth")
    loaded = load_network(tmp_path / "network.pth")
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(loaded(images), narrow(images))
    assert architecture_difference(loaded) is None
    assert not loaded.training


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (eval, (f"open({str(self.target)!r}, 'w').close()",))


@pytest.mark.parametrize("new_format", [True, False])
def test_a_pickle_that_would_run_code_is_refused_by_name_and_does_not_run(tmp_path: Path, new_format: bool) -> None:
    target, path = tmp_path / "ran", tmp_path / "bomb.pth"
    model = fresh(10, 0)
    model.bomb = Bomb(target)
    torch.save(model, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(InputError, match=r"eval|format from before 1\.6") as caught:
        load_network(path)
    assert not target.exists()
    assert "\n" not in str(caught.value)


def test_plain_pickles_do_not_run_either(tmp_path: Path) -> None:
    target, path = tmp_path / "ran", tmp_path / "bomb.pth"
    path.write_bytes(pickle.dumps(Bomb(target)))
    with pytest.raises(InputError):
        load_network(path)
    assert not target.exists()


def test_other_networks_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "network.pth"
    torch.save(resnet18(), path)
    with pytest.raises(InputError, match=r"resnet"):
        load_network(path)
    torch.save(resnet18().state_dict(), path)
    with pytest.raises(InputError, match=r"not the weights of a MobileNetV2"):
        load_network(path)
    torch.save(nn.Sequential(nn.Linear(2, 2)), path)
    with pytest.raises(InputError, match=r"holds a Sequential"):
        load_network(path)
    torch.save({"epoch": 1}, path)
    with pytest.raises(InputError, match=r"not the weights of a MobileNetV2 \(it lacks features"):
        load_network(path)
    torch.save({**fresh(10, 0).state_dict(), "features.0.1.num_batches_tracked": 3}, path)
    with pytest.raises(InputError, match=r"num_batches_tracked is not a tensor"):
        load_network(path)
    state = fresh(10, 0).state_dict()
    state["features.18.0.weight"] = torch.zeros(1280, 7, 1, 1)
    torch.save(state, path)
    with pytest.raises(InputError, match=r"do not fit together"):
        load_network(path)


def test_damaged_files_are_refused(dense: MobileNetV2, tmp_path: Path) -> None:
    path = tmp_path / "network.pth"
    buffer = io.BytesIO()
    torch.save(dense, buffer)
    whole = buffer.getvalue()
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"network\.pth"):
            load_network(path)
    path.write_text("not a network")
    with pytest.raises(InputError):
        load_network(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", "nothing")
    with pytest.raises(InputError):
        load_network(path)
    with pytest.raises(InputError, match="no such file"):
        load_network(tmp_path / "missing.pth")
    with pytest.raises(InputError, match="is a folder"):
        load_network(tmp_path)


def test_a_dense_network_needs_the_datas_classes(tmp_path: Path) -> None:
    torch.save(mobilenet_v2(num_classes=7), tmp_path / "seven.pth")
    with pytest.raises(InputError, match=r"7 classes, the data has 10"):
        load_dense(tmp_path / "seven.pth", 10)


def _change(model: MobileNetV2, what: str) -> None:
    block = model.features[4]
    if what == "stride":
        block.conv[1][0].stride = (4, 4)
    elif what == "identity":
        model.features[0][2] = nn.Identity()
    elif what == "bias":
        block.conv[2] = nn.Conv2d(144, 32, 1)
    elif what == "missing block":
        del model.features[3]
    elif what == "extra":
        model.classifier.append(nn.ReLU())
    elif what == "pointwise":
        block.conv[1][0] = nn.Conv2d(144, 144, 3, 2, 1, bias=False)
    elif what == "hook":
        block.register_forward_hook(lambda *_: None)
    elif what == "shortcut":
        block.use_res_connect = True


@pytest.mark.parametrize(
    "what", ["stride", "identity", "bias", "missing block", "extra", "pointwise", "hook", "shortcut"]
)
def test_a_changed_structure_is_noticed(what: str) -> None:
    model = fresh(10, 0)
    assert architecture_difference(model) is None
    _change(model, what)
    assert architecture_difference(model)
