"""Networks as people have them: a MobileNetV2's weights are taken in any form, or refused in a line that says why."""

from __future__ import annotations

import argparse
import collections
import copy
import datetime
import enum
import io
import pickle
import re
import subprocess
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as as_safetensors
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.optim.swa_utils import AveragedModel
from torchvision.models import mobilenet_v3_small
from torchvision.models.mobilenetv2 import InvertedResidual, MobileNetV2
from torchvision.ops.misc import Conv2dNormActivation

from processes import Command
from pruner.channels.importance import score_channels
from pruner.channels.plan import apply_plan, make_plan
from pruner.data.datasets import Dataset
from pruner.errors import InputError
from pruner.network.loading import load_dense, load_network
from pruner.network.mobilenet import architecture_difference
from pruner.network.structure import BLOCKS_BY_STAGE
from pruner.recipe import Prune
from pruner.train import Training
from pruner.training.fine_tune import fine_tune
from studies import WriteStudy

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> MobileNetV2:
    """A narrow one with random weights, whose BatchNorms have seen images."""
    torch.manual_seed(0)
    model = MobileNetV2(num_classes=10, width_mult=0.35)
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(8, 3, 32, 32))
    return model.eval()


@pytest.fixture
def own(network: MobileNetV2) -> MobileNetV2:
    """A copy, to be changed."""
    return copy.deepcopy(network)


def outputs(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        return model.eval()(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": value for name, value in state.items()}


class Mode(enum.Enum):
    FAST = "fast"


class Settings:
    def __init__(self) -> None:
        self.rate, self.mode = 0.1, Mode.FAST


class Options(dict[str, Any]):
    """As EasyDict and its like."""


class Wrapper(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.scale = model, nn.Parameter(torch.ones(1))


BESIDE: dict[str, Any] = {
    "numpy": {"best": np.float64(91.5), "seen": np.int64(3), "curve": np.ones(3), "state": np.random.get_state()},
    "args": argparse.Namespace(lr=0.1, out=Path("runs"), mode=Mode.FAST, when=datetime.datetime.now()),
    "namespace": types.SimpleNamespace(a=datetime.timedelta(1), b=datetime.date(2024, 1, 1)),
    "containers": [collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]), collections.deque([1, 2]), {3}],
    "own classes": [Settings(), Options(a=1)],
    "torch": [torch.device("cpu"), torch.float16, torch.Size([1]), torch.get_rng_state()],
}


def _thop(model: MobileNetV2) -> MobileNetV2:
    for layer in model.modules():
        layer.register_buffer("total_ops", torch.zeros(1, dtype=torch.float64))
        layer.register_buffer("total_params", torch.zeros(1, dtype=torch.float64))
    return model


def _features_parallel(model: MobileNetV2) -> MobileNetV2:
    model.features = nn.DataParallel(model.features)
    return model


def _optimizer(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    optimizer.step()
    return optimizer


def _with_ema(model: MobileNetV2, order: Callable[[list[Any]], Any] = list) -> dict[str, Any]:
    average = AveragedModel(MobileNetV2(num_classes=10, width_mult=0.35)).state_dict()
    return dict(order([("model", model.state_dict()), ("model_ema", average)]))


FORMS: dict[str, Callable[[MobileNetV2], Any]] = {
    "module": lambda m: m,
    "state_dict": lambda m: m.state_dict(),
    "parameters kept": lambda m: m.state_dict(keep_vars=True),
    "frozen": lambda m: m.requires_grad_(False),
    "partly frozen": lambda m: (m.features.requires_grad_(False), m)[1],
    **{f"under {key}": lambda m, key=key: {key: m.state_dict(), "epoch": 3} for key in (
        "model", "net", "model_state_dict", "ema", "params", "weights", "my own key", "a.b", 7)},
    "nested": lambda m: {"epoch": 3, "model": {"state_dict": m.state_dict(), "name": "x"}},
    "in a list": lambda m: [3, (m.state_dict(), "x")],
    "parts apart": lambda m: {"features": m.features.state_dict(), "classifier": m.classifier.state_dict()},
    "an object's attribute": lambda m: (holder := Settings(), setattr(holder, "weights", m.state_dict()))[0],
    "module in a dict": lambda m: {"model": m, "epoch": 3},
    "data parallel": lambda m: nn.DataParallel(m),
    "data parallel's state": lambda m: nn.DataParallel(m).state_dict(),
    "features data parallel": lambda m: _features_parallel(m),
    "features data parallel's state": lambda m: _features_parallel(m).state_dict(),
    "compiled": lambda m: torch.compile(m),
    "compiled's state": lambda m: torch.compile(m).state_dict(),
    "averaged": lambda m: AveragedModel(m),
    "averaged's state": lambda m: AveragedModel(m).state_dict(),
    "averaged, compiled, data parallel": lambda m: AveragedModel(torch.compile(nn.DataParallel(m))),
    "lightning": lambda m: {"state_dict": {**prefixed(m.state_dict(), "net._orig_mod."), "loss.weight": torch.ones(3)},
                            "hyper_parameters": Options(a=1), "callbacks": {"best": torch.tensor(1.0)}},
    "a wrapper's state": lambda m: Wrapper(m).state_dict(),
    "an average beside": _with_ema,
    "an average before": lambda m: _with_ema(m, reversed),
    "a teacher beside": lambda m: {**prefixed(MobileNetV2().state_dict(), "teacher."),
                                   **prefixed(m.state_dict(), "student.")},
    "the same twice": lambda m: {"last": m.state_dict(), "best": {k: v.clone() for k, v in m.state_dict().items()}},
    "an optimizer beside": lambda m: {"model": m.state_dict(), "optimizer": _optimizer(copy.deepcopy(m)).state_dict()},
    "a whole optimizer beside": lambda m: {"model": m.state_dict(), "optimizer": _optimizer(copy.deepcopy(m))},
    "an optimizer among": lambda m: {**m.state_dict(), "optimizer": _optimizer(copy.deepcopy(m)).state_dict(), "n": 3},
    "parameters beside": lambda m: {"gradients": dict(m.named_parameters()), "model": m.state_dict()},
    **{f"{name} beside": lambda m, name=name: {"state_dict": m.state_dict(), "x": BESIDE[name]} for name in BESIDE},
    "thop": _thop,
    "thop's state": lambda m: _thop(m).state_dict(),
    "a buffer of one's own": lambda m: (m.features[3].register_buffer("seen", torch.zeros(3)), m)[1],
    "no num_batches_tracked": lambda m: {k: v for k, v in m.state_dict().items() if "num_batches" not in k},
    "SyncBatchNorm": lambda m: nn.SyncBatchNorm.convert_sync_batchnorm(m),
    "float64": lambda m: m.double(),
    "channels last": lambda m: m.to(memory_format=torch.channels_last),
    "linear classifier's state": lambda m: (setattr(m, "classifier", m.classifier[1]), m.state_dict())[1],
    "two dropouts": lambda m: (m.classifier.insert(0, nn.Dropout()), m.state_dict())[1],
}  # fmt: skip


def names_in(path: Path) -> set[bytes]:
    """The classes and functions that a pickled file names."""
    with zipfile.ZipFile(path) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        return set(re.findall(rb"c[\w.]+\n\w+\n", archive.read(pickled)))


@pytest.mark.parametrize("form", FORMS)
def test_a_network_is_taken_in_any_form_and_comes_out_clean(
    form: str, network: MobileNetV2, own: MobileNetV2, tmp_path: Path
) -> None:
    torch.save(FORMS[form](own), tmp_path / "given.pth")
    loaded = load_network(tmp_path / "given.pth")
    assert torch.equal(outputs(loaded), outputs(network))
    assert architecture_difference(loaded) is None and not loaded.training
    assert loaded.state_dict().keys() == network.state_dict().keys()
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    torch.save(network, tmp_path / "clean.pth")
    torch.save(loaded, tmp_path / "out.pth")
    assert names_in(tmp_path / "out.pth") == names_in(tmp_path / "clean.pth")


@pytest.mark.parametrize("whole", [True, False])
def test_masks_of_torchs_own_pruning_are_multiplied_out(own: MobileNetV2, whole: bool, tmp_path: Path) -> None:
    layers = [layer for layer in own.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        prune.l1_unstructured(layer, "weight", 0.3)
    prune.random_structured(layers[3], "weight", 0.2, dim=0)
    prune.random_unstructured(layers[-1], "bias", 0.5)
    expected = outputs(own)
    torch.save(own if whole else own.state_dict(), tmp_path / "masked.pth")
    loaded = load_network(tmp_path / "masked.pth")
    assert torch.equal(outputs(loaded), expected)
    zeros = sum(int((layer.weight == 0).sum()) for layer in loaded.modules() if isinstance(layer, nn.Conv2d))
    assert zeros > 0.29 * sum(layer.weight.numel() for layer in loaded.modules() if isinstance(layer, nn.Conv2d))


OLD = {
    "0.3 to 0.8": ("torchvision.models.mobilenet", "ConvBNReLU"),
    "0.8": ("torchvision.models.mobilenetv2", "ConvBNReLU"),
    "0.9 to 0.11": ("torchvision.models.mobilenetv2", "ConvBNActivation"),
    "0.12": ("torchvision.ops.misc", "ConvNormActivation"),
}


@pytest.mark.parametrize("version", OLD)
def test_whole_networks_of_older_torchvision_versions(
    version: str, network: MobileNetV2, own: MobileNetV2, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home, convolution = OLD[version]
    renamed: dict[type, type] = {}
    for kind, name in ((Conv2dNormActivation, convolution), (MobileNetV2, "MobileNetV2"),
                       (InvertedResidual, "InvertedResidual")):  # fmt: skip
        module = home if kind is Conv2dNormActivation or home.endswith("mobilenet") else kind.__module__
        renamed[kind] = type(
            name, (nn.Sequential if kind is Conv2dNormActivation else nn.Module,), {"__module__": module}
        )
        if module not in sys.modules:
            monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        monkeypatch.setattr(sys.modules[module], name, renamed[kind], raising=False)
    for layer in own.modules():
        layer.__class__ = renamed.get(type(layer), type(layer))
        for attribute in ("out_channels", "_is_cn"):  # newer than those versions
            if not isinstance(layer, nn.Conv2d):
                vars(layer).pop(attribute, None)
    torch.save(own, tmp_path / "old.pth")
    monkeypatch.undo()
    loaded = load_network(tmp_path / "old.pth")
    assert torch.equal(outputs(loaded), outputs(network))
    assert architecture_difference(loaded) is None


def timm_names(blocks: tuple[int, ...] = BLOCKS_BY_STAGE) -> list[str]:
    """The layers of timm's MobileNetV2, in their order, which is torchvision's (`timm/models/efficientnet.py`)."""
    parts = {True: ("conv_dw", "bn1", "conv_pw", "bn2"), False: ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")}
    return [
        "conv_stem",
        "bn1",
        *(f"blocks.{i}.{j}.{part}" for i, count in enumerate(blocks) for j in range(count) for part in parts[i == 0]),
        "conv_head",
        "bn2",
        "classifier",
    ]


def as_timm(model: nn.Module) -> State:
    layers: dict[str, State] = {}
    for name, value in model.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        layers.setdefault(layer, {})[leaf] = value
    pairs = zip(timm_names(), layers.values(), strict=True)
    return {f"{name}.{leaf}": value for name, layer in pairs for leaf, value in layer.items()}


@pytest.mark.parametrize("width", [0.35, 0.5, 0.75, 1.0, 1.4])
def test_timms_weights(width: float, tmp_path: Path) -> None:
    model = MobileNetV2(num_classes=10, width_mult=width)
    model(torch.rand(4, 3, 32, 32))
    torch.save({"arch": "mobilenetv2", "state_dict": prefixed(as_timm(model), "module.")}, tmp_path / "timm.pth")
    assert torch.equal(outputs(load_network(tmp_path / "timm.pth")), outputs(model))


def test_timms_deeper_variants_are_refused_for_their_depth(network: MobileNetV2, tmp_path: Path) -> None:
    some = as_timm(network)
    deeper = {
        f"{name}.{leaf}": some["bn1.weight"] for name in timm_names((1, 3, 4, 5, 4, 4, 1)) for leaf in ("weight",)
    }
    torch.save(deeper, tmp_path / "mobilenetv2_110d.pth")
    with pytest.raises(InputError, match=r"\[1, 3, 4, 5, 4, 4, 1\] blocks.*110d"):
        load_network(tmp_path / "mobilenetv2_110d.pth")


@pytest.mark.slow
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prefix=st.lists(st.sampled_from(["module", "_orig_mod", "model", "net", "ema", "ema_model", "0"]), max_size=4),
    keys=st.lists(st.sampled_from(["model", "state_dict", "params", "ema", "x.y", 0, "best"]), max_size=3),
    beside=st.lists(st.sampled_from(sorted(BESIDE)), max_size=2),
    masked=st.booleans(), counted=st.booleans(), tracked=st.booleans(), timm=st.booleans(),
)  # fmt: skip
def test_prefixes_and_keys_in_any_order_and_depth(
    network: MobileNetV2, prefix: list[str], keys: list[Any], beside: list[str], masked: bool, counted: bool,
    tracked: bool, timm: bool, tmp_path: Path,
) -> None:  # fmt: skip
    state = as_timm(network) if timm else dict(network.state_dict())
    if masked:
        name = next(iter(state))
        state |= {f"{name}_orig": state[name], f"{name}_mask": torch.ones_like(state.pop(name))}
    if counted:
        state |= {"total_ops": torch.zeros(1), "classifier.total_params": torch.zeros(1)}
    content: Any = {
        f"{'.'.join([*prefix, name])}": value for name, value in state.items() if tracked or "num_batches" not in name
    }
    for key in keys:
        content = {**{name: BESIDE[name] for name in beside}, key: content}
    torch.save(content, tmp_path / "network.pth")
    assert torch.equal(outputs(load_network(tmp_path / "network.pth")), outputs(network))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(network: MobileNetV2, own: MobileNetV2, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.save(own.to(dtype), tmp_path / "half.pth")
    loaded = load_network(tmp_path / "half.pth")
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32, torch.int64}
    assert all(loaded.get_parameter(name).equal(p.to(dtype).float()) for name, p in network.named_parameters())


def _numpy(model: nn.Module) -> dict[str, Any]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def _replaced(layer: Callable[[MobileNetV2], object]) -> Callable[[MobileNetV2], Any]:
    return lambda model: (layer(model), model)[1]


WEIGHT = "features.3.conv.2.weight"
REFUSED: dict[str, tuple[Callable[[MobileNetV2], Any], str]] = {
    "not a number": (lambda m: {"a": {**m.state_dict(), WEIGHT: m.state_dict()[WEIGHT] * float("nan")}},
                     rf"a: {WEIGHT} has values that are not finite"),
    "infinite variance": (lambda m: {**m.state_dict(), "features.0.1.running_var": torch.full((16,), float("inf"))},
                          r"features\.0\.1\.running_var has values that are not finite"),
    "negative variance": (lambda m: {**m.state_dict(), "features.0.1.running_var": torch.full((16,), -1.0)},
                          "outputs are not finite"),
    "integers": (lambda m: {**m.state_dict(), WEIGHT: m.state_dict()[WEIGHT].to(torch.int8)}, f"{WEIGHT}.*torch.int8"),
    "complex": (lambda m: {**m.state_dict(), WEIGHT: m.state_dict()[WEIGHT].cfloat()}, f"{WEIGHT}.*torch.complex64"),
    "sparse": (lambda m: {**m.state_dict(), WEIGHT: m.state_dict()[WEIGHT].to_sparse()}, f"{WEIGHT} is not a dense"),
    "meta": (lambda m: {**m.state_dict(), WEIGHT: m.state_dict()[WEIGHT].to("meta")}, f"{WEIGHT} has no values"),
    "numpy": (_numpy, r"features\.0\.0\.weight is not a tensor, but an array of NumPy"),
    "one channel": (lambda m: {**m.state_dict(), "features.0.0.weight": torch.rand(16, 1, 3, 3)}, "of 1 channel"),
    "a narrower network": (lambda m: MobileNetV2(width_mult=0.25).state_dict(), "width_mult of 0.25 or less"),
    "a narrower module": (lambda m: MobileNetV2(width_mult=0.25), r"features\.1 has use_res_connect True"),
    "another network": (lambda m: mobilenet_v3_small().state_dict(), "classifier has more layers"),
    "another module": (lambda m: mobilenet_v3_small(), r"holds a torchvision\.\S+MobileNetV3"),
    "a wrapper of one's own": (lambda m: Wrapper(m), r"holds a \S*Wrapper, .*state_dict\(\)"),
    "two networks": (lambda m: {"last": m.state_dict(), "best": MobileNetV2().state_dict()}, r"several.*last, best"),
    "a foreign layer": (lambda m: {**m.state_dict(), "features.4.se.weight": torch.ones(3)}, r"foreign features\.4"),
    "no classifier": (_replaced(lambda m: setattr(m, "classifier", nn.Identity())), "classifier is a Identity"),
    "another activation": (_replaced(lambda m: m.features[0].__setitem__(2, nn.SiLU())), r"features\.0\.2 is a SiLU"),
    "a hook": (_replaced(lambda m: m.features[0].register_forward_hook(print)), r"features\.0 has a hook"),
    "another epsilon": (_replaced(lambda m: setattr(m.features[0][1], "eps", 1e-3)), r"features\.0\.1 has eps 0\.001"),
    "weight_norm": (lambda m: (weight_norm(m.features[0][0]), m.state_dict())[1], "remove_weight_norm"),
    "spectral_norm": (lambda m: (spectral_norm(m.features[0][0]), m.state_dict())[1], "remove_spectral_norm"),
    "parametrised": (lambda m: (parametrizations.weight_norm(m.features[0][0]), m.state_dict())[1], "remove_param"),
    "a wider classifier": (lambda m: {**m.state_dict(), "classifier.4.weight": torch.ones(9, 10)}, r"classifier\.4"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_is_refused_says_why_in_one_line(what: str, own: MobileNetV2, tmp_path: Path) -> None:
    build, reason = REFUSED[what]
    torch.save(build(own), tmp_path / "given.pth")
    with pytest.raises(InputError, match=reason) as caught:
        load_network(tmp_path / "given.pth")
    assert str(caught.value).startswith(f"{tmp_path / 'given.pth'}") and "\n" not in str(caught.value)


def test_a_classifier_that_was_replaced(command: Command, own: MobileNetV2, tmp_path: Path) -> None:
    """A network to prune may have one Linear there; one that is graded would be handed in as it is."""
    path = tmp_path / "linear.pth"
    own.classifier = own.classifier[1]
    torch.save(own, path)
    loaded = load_dense(path, 10)
    assert torch.equal(outputs(loaded), outputs(own))
    assert architecture_difference(loaded) is None
    for arguments in (("evaluate", path), ("compare", path, "--no-grade")):
        done = command(*arguments, "--data", "digits", "--resolution", 32)
        assert done.returncode == 2
        assert done.stderr == f"prune-search: {path}: not a MobileNetV2: classifier is a Linear, not a Sequential\n"
    own.classifier = nn.Sequential(nn.Dropout(), nn.Linear(1280, 64), nn.ReLU(), nn.Linear(64, 10))
    torch.save(own, path)
    with pytest.raises(InputError, match=r"classifier\.2 \(ReLU\) does not belong there"):
        load_dense(path, 10)
    torch.save(own.state_dict(), path)
    with pytest.raises(InputError, match=r"more layers than one Linear: classifier\.1, classifier\.3"):
        load_dense(path, 10)


class Call:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("function", [subprocess.Popen, exec, Path.touch, subprocess.getoutput, __import__])
def test_a_call_beside_the_weights_is_refused_and_does_not_run(
    function: Callable[..., object], network: MobileNetV2, tmp_path: Path
) -> None:
    ran, path = tmp_path / "ran", tmp_path / "network.pth"
    argument = {exec: f"open({str(ran)!r}, 'w')", Path.touch: ran, __import__: "antigravity"}.get(
        function, f"touch {ran}"
    )
    torch.save({"model": network.state_dict(), "args": [Call(function, argument)]}, path)
    with pytest.raises(InputError, match="refused, it would call"):
        load_network(path)
    assert not ran.exists() and "antigravity" not in sys.modules


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("network.pth"))
    return buffer.getvalue()


def _zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, "x")
    return buffer.getvalue()


FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS .*git lfs pull"),
    "html": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "HTML page.*download it again"),
    "html, too": ("\ufeff<HTML lang='en'>\u00e9</HTML>".encode(), "HTML page"),
    "xml": (b"<?xml version='1.0'?><net/>", "is an XML file"),
    "json": (b'{"error": "not found"}', "is a JSON file"),
    "text": (b"Entry not found", "is a text file"),
    "gzip": (b"\x1f\x8b\x08\x00", "gzip archive; unpack"),
    "tar": (_tar(), "tar archive; unpack"),
    "zip": (_zip("network.pth"), r"ZIP archive \(network\.pth\); unpack"),
    "npz": (_zip("a.npy", "b.npy"), "NumPy"),
    "keras 3": (_zip("config.json", "model.weights.h5"), "Keras"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(9), "HDF5.*Keras"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(9), "TensorFlow Lite"),
    "executorch": (b"\x1c\x00\x00\x00ET12" + bytes(9), "ExecuTorch"),
    "onnx": (b"\x08\x0a\x12\x07pytorch\x3a\x04\x0a\x02ab\x42\x02\x10\x12", "ONNX model"),
    "onnx, otherwise": (b"\x08\x08\x42\x02\x10\x12\x3a\x04\x0a\x02ab", "ONNX model"),
    "saved model": (b"\x08\x01\x12\x04\x0a\x02ab", "TensorFlow graph"),
    "noise": (bytes(range(128, 256)) * 9, "damaged|not a whole"),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".onnx"])
@pytest.mark.parametrize("kind", FILES)
def test_other_files_are_named_for_what_they_are(kind: str, suffix: str, tmp_path: Path) -> None:
    content, reason = FILES[kind]
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason) as caught:
        load_network(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_programs_and_folders_are_named_for_what_they_are(network: MobileNetV2, tmp_path: Path) -> None:
    images, path = torch.zeros(1, 3, 32, 32), tmp_path / "network.pth"
    torch.jit.save(torch.jit.trace(network, images), path)
    with pytest.raises(InputError, match="TorchScript program"):
        load_network(path)
    torch.save(torch.jit.load(path).state_dict(), tmp_path / "as said.pth")
    assert torch.equal(outputs(load_network(tmp_path / "as said.pth")), outputs(network))
    torch.export.save(torch.export.export(network, (images,)), tmp_path / "network.pt2")
    with pytest.raises(InputError, match=r"torch\.export program"):
        load_network(tmp_path / "network.pt2")
    torch.save(torch.export.load(tmp_path / "network.pt2").state_dict, tmp_path / "as said.pth")
    assert torch.equal(outputs(load_network(tmp_path / "as said.pth")), outputs(network))
    with pytest.raises(InputError, match=r"is a folder, not a file; give a file in it, as \S*as said\.pth"):
        load_network(tmp_path)
    for name, what in (("saved_model.pb", "SavedModel"), (".metadata", "torch.distributed"), ("data.pkl", "unpacked")):
        folder = tmp_path / what
        folder.mkdir()
        (folder / name).touch()
        with pytest.raises(InputError, match=what):
            load_network(folder)


def test_the_content_counts_not_the_name(network: MobileNetV2, tmp_path: Path) -> None:
    (tmp_path / "network.pth").write_bytes(as_safetensors(prefixed(network.state_dict(), "model.")))
    torch.save({"model": network.state_dict()}, tmp_path / "network.safetensors")
    torch.save(network.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("network.pth", "network.safetensors", "old.pth"):
        assert torch.equal(outputs(load_network(tmp_path / name)), outputs(network))
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(network.state_dict()))
    with pytest.raises(InputError, match=r"save its state_dict\(\) with torch\.save"):
        load_network(tmp_path / "plain.pkl")


@pytest.mark.parametrize("frozen", ["in the file", "in memory"])
def test_every_parameter_of_a_frozen_network_moves(
    frozen: str, network: MobileNetV2, own: MobileNetV2, data: Dataset, tmp_path: Path
) -> None:
    path = tmp_path / "frozen.pth"
    torch.save(own.requires_grad_(False), path)
    model = own if frozen == "in memory" else load_dense(path, 10)
    for importance in ("l2", "taylor"):
        plan = make_plan(
            model,
            Prune(pruning_ratio={"stage4": 0.3}),
            score_channels(model, importance, data.train.first(8), resolution=32),
        )
    pruned = apply_plan(model, plan)
    before = {name: parameter.detach().clone() for name, parameter in pruned.named_parameters()}
    tune = Training(epochs=1, images_per_epoch=64, batch_size=32, resolution=32, learning_rate=0.01, optimizer="adamw")
    list(fine_tune(pruned, data.train, tune, mirrors=False))
    moved = [name for name, parameter in pruned.named_parameters() if not torch.equal(parameter, before[name])]
    assert len(moved) == len(before) == 158


@pytest.mark.slow
def test_a_study_from_a_network_as_people_have_it(
    command: Command, write_study: WriteStudy, own: MobileNetV2, tmp_path: Path
) -> None:
    own = _thop(own)
    own.classifier = own.classifier[1]
    torch.save({"model": nn.DataParallel(own.requires_grad_(False)), "args": BESIDE["args"]}, tmp_path / "base.pth")
    study, runs = write_study("trials = 1"), tmp_path / "runs"
    done = command("run", study, "--dense", tmp_path / "base.pth", "--runs", runs, "--workers", 1)
    assert done.returncode == 0, done.stderr
    (exported,) = (runs / "tiny" / "export").glob("*.pth")
    names = [name for name, _ in torch.load(exported, weights_only=False).named_buffers()]
    assert not [name for name in names if "total_" in name]
