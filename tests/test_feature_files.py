"""Inception's weights from files: a narrow net of the same names, saved by PyTorch, against the layers of PyTorch."""

import pickle
import zipfile

import numpy as np
import pytest
from conftest import needs_pyro

import probgen as pg
from probgen.evaluate.features.inception import BLOCKS, STEM, inception
from probgen.evaluate.features.torch_files import read_weights

KERNELS = {"1x1": (1, 1), "5x5_1": (1, 1), "5x5_2": (5, 5), "3x3dbl_1": (1, 1), "7x7_1": (1, 1), "7x7_2": (1, 7),
           "7x7_3": (7, 1), "7x7dbl_1": (1, 1), "7x7dbl_2": (7, 1), "7x7dbl_3": (1, 7), "7x7dbl_4": (7, 1),
           "7x7dbl_5": (1, 7), "7x7x3_1": (1, 1), "7x7x3_2": (1, 7), "7x7x3_3": (7, 1), "7x7x3_4": (3, 3),
           "3x3_2a": (1, 3), "3x3_2b": (3, 1), "3x3dbl_3a": (1, 3), "3x3dbl_3b": (3, 1), "3x3_1": (1, 1), "_pool": (1, 1),
           "3x3_2": (3, 3), "3x3": (3, 3), "3x3dbl_2": (3, 3), "3x3dbl_3": (3, 3)}  # fmt: skip
WIDTH = 3  # channels of every convolution


def written(torch, x=None):
    """The net's layers, by PyTorch, from pictures of 299 x 299: features; and the weights that it makes on the way."""
    functional, weights, rng = torch.nn.functional, {}, np.random.default_rng(0)

    def convolved(x, name, size, stride=1, padding=(0, 0)):
        draw = lambda low, high, *shape: torch.tensor(rng.uniform(low, high, shape), dtype=torch.float32)  # noqa: E731
        own = {"conv.weight": draw(-1, 1, WIDTH, x.shape[1], *size) / np.sqrt(x.shape[1] * size[0] * size[1] / 4)}
        own |= {"bn.weight": draw(0.5, 1.5, WIDTH), "bn.bias": draw(-0.1, 0.4, WIDTH)}
        own |= {"bn.running_mean": draw(-0.1, 0.1, WIDTH), "bn.running_var": draw(0.5, 1.5, WIDTH)}
        weights.update({f"{name}.{part}": value for part, value in own.items()})
        x = functional.conv2d(x, own["conv.weight"], stride=stride, padding=padding)
        x = functional.batch_norm(
            x, own["bn.running_mean"], own["bn.running_var"], own["bn.weight"], own["bn.bias"], eps=1e-3
        )
        return functional.relu(x)

    def walked(x, block, branch):
        for step in branch:
            name, stride = step if isinstance(step, tuple) else (step, 1)
            if isinstance(step, list):
                x = torch.cat([walked(x, block, [each]) for each in step], 1)
            elif name == "average":
                x = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            elif name in ("maximum", "reduce"):
                x = functional.max_pool2d(x, 3, 1, 1) if name == "maximum" else functional.max_pool2d(x, 3, 2)
            else:
                size = KERNELS[name.removeprefix("branch")]
                x = convolved(
                    x, f"{block}.{name}", size, stride, (0, 0) if stride == 2 else (size[0] // 2, size[1] // 2)
                )
        return x

    for name, (stride, padding) in STEM.items():
        x = convolved(x, name, (1, 1) if name.endswith("1x1") else (3, 3), stride, padding)
        x = functional.max_pool2d(x, 3, 2) if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3") else x
    for block, branches in BLOCKS.items():
        x = torch.cat([walked(x, block, branch) for branch in branches], 1)
    features = x.mean((2, 3))
    weights["fc.weight"] = torch.tensor(rng.normal(size=(7, features.shape[1])), dtype=torch.float32)
    weights["fc.bias"] = torch.zeros(7)
    return features, weights


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """Pictures, their features by PyTorch, and a folder with the weights in four forms."""
    torch = pytest.importorskip("torch")
    from safetensors.numpy import save_file

    folder = tmp_path_factory.mktemp("weights")
    x = np.random.default_rng(1).integers(0, 256, (3, 299, 299, 3), dtype=np.uint8)
    features, weights = written(torch, (torch.tensor(x.transpose(0, 3, 1, 2)).float() - 128) / 128)
    torch.save(weights, folder / "zip.pth")
    torch.save({"state_dict": weights}, folder / "stream.pth", _use_new_zipfile_serialization=False)
    arrays = {k: v.numpy() for k, v in weights.items()}
    np.savez(folder / "arrays.npz", **arrays)
    save_file(arrays, folder / "arrays.safetensors")
    return x, features.numpy(), weights["fc.weight"].numpy(), folder


@needs_pyro
def test_features_are_those_of_the_same_layers_in_pytorch(narrow):
    x, features, last, folder = narrow
    net = inception(folder / "zip.pth")
    found, p = net(x / 255)
    assert abs(features).max() > 0.1
    assert found == pytest.approx(features, rel=2e-4, abs=2e-5)
    odds = features.astype(float) @ last.T
    assert np.log(p) - np.log(p[:, :1]) == pytest.approx(odds - odds[:, :1], abs=1e-3)
    assert np.array_equal(net(x[:1] / 255)[0], found[:1]), "whatever the batch"


@needs_pyro
def test_every_form_of_file_is_the_same_net(narrow):
    nets = [inception(narrow[3] / name) for name in ("zip.pth", "stream.pth", "arrays.npz", "arrays.safetensors")]
    assert len({net.hash for net in nets}) == 1
    assert nets[0].name == "Inception of zip.pth"


@needs_pyro
def test_a_file_is_a_net_for_evaluate(narrow):
    x, y = (np.random.default_rng(seed).random((6, 8, 8)) for seed in (1, 2))
    found = pg.evaluate(x, data=y, net=narrow[3] / "zip.pth", measures=("fid", "kid"))
    assert found.net_hash == inception(narrow[3] / "arrays.npz").hash
    assert np.isfinite(found["fid"].value)


@needs_pyro
def test_tensors_are_read_as_pytorch_reads_them(tmp_path):
    """Views, transposes, shared storages, parameters, types, scalars; both forms."""
    import torch

    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "base": base, "turned": base.T, "part": base[1:, 2], "half": base.half(), "whole": torch.arange(5), "none": base[:0],
        "single": torch.tensor(2.5), "double": base.double(), "flags": base > 4, "parameter": torch.nn.Parameter(base),
    }  # fmt: skip
    for new in (True, False):
        torch.save(tensors, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
        found = read_weights(tmp_path / "x.pth")
        assert set(found) == set(tensors)
        for name, value in tensors.items():
            expected = value.detach().numpy()
            assert found[name].dtype == expected.dtype
            assert np.array_equal(found[name], expected), name


class Code:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_files_that_are_no_weights_are_refused(tmp_path, capsys):
    (tmp_path / "code.pth").write_bytes(pickle.dumps({"a": Code()}))
    with zipfile.ZipFile(tmp_path / "code_zip.pth", "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"a": Code()}))
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("x/constants.pkl", b"")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(ValueError, match=r"which is no tensor; save model\.state_dict"):
        read_weights(tmp_path / "code_zip.pth")
    for name in ("code.pth", "text.pth", "script.pt"):
        with pytest.raises(ValueError, match="cannot be read as PyTorch's weights"):
            read_weights(tmp_path / name)
    assert not capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_weights(tmp_path / "absent.pth")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match=r"has no Conv2d_1a_3x3.conv.weight \(471 of 471 arrays are missing\)"):
        inception(tmp_path / "other.npz")


@needs_pyro
def test_a_file_that_is_cut_short_is_refused(narrow, tmp_path):
    for name in ("zip.pth", "stream.pth"):
        raw = (narrow[3] / name).read_bytes()
        (tmp_path / name).write_bytes(raw[: len(raw) - 5000])
        with pytest.raises(ValueError, match="cannot be read as PyTorch's weights"):
            read_weights(tmp_path / name)
