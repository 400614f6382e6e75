from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
import torch
from sklearn.decomposition import PCA

from compressor.errors import FileError, InputError
from compressor.filters import Basis, Moments
from compressor.filters.scaling import scaled_kernels


@pytest.fixture
def kernels() -> torch.Tensor:
    return torch.randn(300, 9) @ torch.randn(9, 9) * torch.logspace(0, -3, 300)[:, None]


def test_it_is_the_pca_of_scikit_learn_on_scaled_kernels(kernels: torch.Tensor) -> None:
    scaled = (kernels / kernels.abs().amax(dim=1, keepdim=True)).double().numpy()
    expected = PCA(n_components=9, svd_solver="full").fit(scaled)
    basis = Basis.of_kernels(kernels)
    np.testing.assert_allclose(basis.mean_K, expected.mean_, atol=1e-14)
    np.testing.assert_allclose(basis.shares_K, expected.explained_variance_ratio_, atol=1e-14)
    np.testing.assert_allclose(basis.explained_variance_K, expected.explained_variance_, atol=1e-13)
    signs = np.sign((expected.components_ * basis.components_KK.numpy()).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(basis.components_KK, expected.components_ * signs, atol=1e-10)
    np.testing.assert_allclose(basis.coefficients(kernels), expected.transform(scaled) * signs.T, atol=1e-10)
    assert basis.count == 300


def test_the_largest_loading_is_positive(kernels: torch.Tensor) -> None:
    components = Basis.of_kernels(kernels).components_KK
    assert (components.gather(1, components.abs().argmax(dim=1, keepdim=True)) > 0).all()
    assert Basis.of_kernels(kernels).identity == Basis.of_kernels(kernels).identity


def test_merged_moments_make_the_same_basis(kernels: torch.Tensor) -> None:
    parts = [Moments.of(scaled_kernels(part)) for part in kernels.split(7)]
    merged, whole = Basis.of_moments(Moments.merged(parts, width=9)), Basis.of_kernels(kernels)
    torch.testing.assert_close(merged.components_KK, whole.components_KK, atol=1e-10, rtol=0)
    torch.testing.assert_close(merged.shares_K, whole.shares_K, atol=1e-14, rtol=0)


@pytest.mark.parametrize("size", [(3, 3), (5,), (2, 3, 4)])
def test_cosines_are_scipys(size: tuple[int, ...]) -> None:
    width = math.prod(size)
    basis = Basis.cosines(size)
    kernels = torch.randn(4, *size, dtype=torch.float64)
    kernels /= kernels.flatten(1).abs().amax(dim=1).reshape(-1, *[1] * len(size))
    expected = scipy.fft.dctn(kernels.numpy(), norm="ortho", axes=range(1, len(size) + 1))
    frequencies = np.indices(size).reshape(len(size), -1)
    order = np.lexsort((*frequencies[::-1], frequencies.sum(axis=0)))
    found = basis.coefficients(kernels.flatten(1))
    np.testing.assert_allclose(found, expected.reshape(4, width)[:, order], atol=1e-12)
    assert float(basis.components_KK[0].std()) < 1e-12  # the constant comes first


def test_shares_of_data_along_fixed_axes(kernels: torch.Tensor) -> None:
    moments = Moments.of(scaled_kernels(kernels))
    basis = Basis.cosines((3, 3)).with_shares_of(moments)
    variances = basis.coefficients(kernels).var(dim=0)
    torch.testing.assert_close(basis.explained_variance_K, variances)
    torch.testing.assert_close(basis.shares_K, variances / variances.sum())
    assert basis.axes == Basis.cosines((3, 3)).axes
    assert basis.identity != Basis.cosines((3, 3)).identity


def test_no_coefficient_exceeds_the_reach() -> None:
    signs = torch.tensor([[1.0 if bit >> place & 1 else -1.0 for place in range(9)] for bit in range(512)])
    basis = Basis.of_kernels(torch.cat([signs, torch.ones(200, 9)]))
    assert float(basis.coefficients(signs).abs().max()) <= basis.reach


def test_the_published_bases(shared: Path) -> None:
    """The shares are those of the published variances, and the mean lies within what is known of it."""
    with np.load(shared / "golden" / "filterdb_anchors.npz", allow_pickle=False) as golden:
        for which in ("full", "robust", "normal"):
            named = f"cvpr22w_pca_{which}_"
            mean, components, variance, ratio = (
                torch.from_numpy(golden[named + part])
                for part in ("mean", "components", "explained_variance", "explained_variance_ratio")
            )
            # Their covariance, rebuilt, has the same axes by our own fit.
            count = int(golden[named + "n_samples"])
            scatter = components.T @ torch.diag(variance) @ components * (count - 1)
            found = Basis.of_moments(Moments(count, mean, scatter))
            torch.testing.assert_close(found.shares_K, ratio, atol=1e-9, rtol=0)
            torch.testing.assert_close(found.explained_variance_K, variance, atol=1e-9, rtol=0)
            cosines = (found.components_KK * components).sum(dim=1).abs()
            assert cosines.min() > 1 - 1e-9
        assert abs(golden["cvpr22w_pca_full_mean"] - golden["cvpr22_supp_mean"]).max() < 0.01


def test_a_basis_survives_its_file(kernels: torch.Tensor, tmp_path: Path) -> None:
    for basis in (Basis.of_kernels(kernels), Basis.cosines((3, 3))):
        basis.save(tmp_path / "basis.safetensors")
        read = Basis.load(tmp_path / "basis.safetensors")
        assert (read.identity, read.count, read.total_variance) == (
            basis.identity,
            basis.count,
            basis.total_variance,
        )
        plain = json.loads(json.dumps(basis.to_plain()))
        assert Basis.from_plain(plain).identity == basis.identity
    assert [file.name for file in tmp_path.iterdir()] == ["basis.safetensors"]


def test_bad_files_are_named(kernels: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "basis.safetensors"
    with pytest.raises(FileError, match=r"basis\.safetensors"):
        Basis.load(path)
    Basis.of_kernels(kernels).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(FileError, match="no basis could be read"):
        Basis.load(path)
    path.write_bytes(whole[:-72] + np.full(9, 1 / 9).tobytes())  # shares, or a part of another tensor
    with pytest.raises(FileError, match=r"was changed|no basis could be read"):
        Basis.load(path)
    path.write_bytes(b"PK not safetensors")
    with pytest.raises(FileError, match="no basis could be read"):
        Basis.load(path)
    with pytest.raises(FileError, match="cannot write the basis"):
        Basis.cosines((3, 3)).save(tmp_path / "absent" / "basis.safetensors")


def test_bad_input_is_refused(kernels: torch.Tensor) -> None:
    with pytest.raises(InputError, match="two kernels or more, got 1"):
        Basis.of_kernels(kernels[:1])
    with pytest.raises(InputError, match="one shape have no principal axes"):
        Basis.of_kernels(torch.ones(5, 9) * torch.arange(1.0, 6)[:, None])
    with pytest.raises(InputError, match="kernels holds 1 value that is NaN"):
        Basis.of_kernels(torch.tensor([[1.0, math.nan], [1.0, 2.0]]))
    with pytest.raises(InputError, match="matrix of kernels"):
        Basis.of_kernels(torch.randn(4, 2, 3, 3))
    with pytest.raises(InputError, match="scatter of the kernels holds"):
        Basis.of_moments(Moments(5, torch.zeros(2), torch.full((2, 2), math.inf)))
    with pytest.raises(InputError, match="25 elements do not fit basis"):
        Basis.of_kernels(kernels).coefficients(torch.randn(4, 25))
    with pytest.raises(InputError, match="orthonormal"):
        Basis(torch.zeros(2), torch.ones(2, 2), torch.ones(2) / 2)
    with pytest.raises(InputError, match="orthonormal"):
        Basis(torch.zeros(2), torch.eye(2) * math.nan, torch.ones(2) / 2)
    with pytest.raises(InputError, match="add up to 1"):
        Basis(torch.zeros(2), torch.eye(2), torch.ones(2))
    with pytest.raises(InputError, match=r"\[K, K\]"):
        Basis(torch.zeros(3), torch.eye(2), torch.ones(2) / 2)
    with pytest.raises(InputError, match="this is no basis"):
        Basis.from_plain({"mean_K": [0.0]})
    with pytest.raises(InputError, match="sizes of 1 and more"):
        Basis.cosines((3, 0))
