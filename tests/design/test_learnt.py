"""PCA, ZCA and k-means against scikit-learn, convolutional k-means against planted patterns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as TheirKMeans
from sklearn.decomposition import PCA as TheirPCA
from torch import Tensor, nn
from torch.nn import functional

from compressor.design import PCA, ZCA, ConvKMeans, Initialiser, KMeans, initialise_
from compressor.design.clusters import _patches, best_matches
from compressor.design.whitening import Whitening, contrast_normalised
from compressor.errors import InputError

ALL = {"windows": 1_000_000, "per_example": 1_000_000}


def images(n: int = 48, side: int = 12, channels: int = 3, seed: int = 0) -> Tensor:
    """Smooth noise with coloured channels, so that windows have a spectrum."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(n, channels, side + 4, side + 4, generator=generator)
    mixed = torch.einsum("ij,njhw->nihw", torch.randn(channels, channels, generator=generator), noise)
    return functional.avg_pool2d(mixed, 5, 1) + 3


def windows_of(x: Tensor, k: int) -> np.ndarray:
    return functional.unfold(x, k).transpose(1, 2).flatten(0, 1).double().numpy()


def cosines_to(rows: Tensor, others: np.ndarray) -> Tensor:
    """The absolute cosine of each row to the one of the same number."""
    return functional.cosine_similarity(rows.double(), torch.from_numpy(others), dim=1).abs()


def test_pca_filters_are_scikit_learns_components() -> None:
    x, conv = images(), nn.Conv2d(3, 10, 3)
    initialise_(conv, PCA([x], gain=1.0, **ALL))
    rows = conv.weight.detach().flatten(1)
    theirs = TheirPCA(10, svd_solver="full").fit(windows_of(x, 3))
    assert float(cosines_to(rows, theirs.components_).min()) > 1 - 1e-6
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(10))
    assert bool((rows.gather(1, rows.abs().argmax(1, keepdim=True)) > 0).all())


def test_outputs_of_pca_filters_are_uncorrelated_in_falling_order() -> None:
    x, conv = images(), nn.Conv2d(3, 8, 3)
    initialise_(conv, PCA([x], **ALL))
    y = conv(x).detach().double().transpose(0, 1).flatten(1)
    covariance = torch.cov(y)
    variances = covariance.diagonal()
    assert bool((variances[:-1] > variances[1:]).all())
    away = covariance - torch.diag(variances)
    assert float(away.abs().max()) < 1e-4 * float(variances[0])


def test_whitening_is_scikit_learns_up_to_a_rotation() -> None:
    x = torch.from_numpy(windows_of(images(), 3))
    white = Whitening.of(x, epsilon=1e-12)(x)
    theirs = TheirPCA(whiten=True, svd_solver="full").fit(x.numpy())
    rotated = theirs.transform(x.numpy()) @ theirs.components_  # PCA whitening turned back is ZCA
    np.testing.assert_allclose(white.numpy(), rotated, atol=1e-4)


def test_contrast_is_that_of_each_window() -> None:
    x = 9 * torch.randn(50, 27) + torch.randn(50, 1)
    normal = contrast_normalised(x, floor=0.0)
    torch.testing.assert_close(normal.mean(1), torch.zeros(50), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal.var(1, correction=0), torch.ones(50))


def test_zca_filters_are_rows_of_the_whitening_middle_first() -> None:
    x, conv = images(), nn.Conv2d(3, 5, 3)
    initialise_(conv, ZCA([x], gain=1.0, epsilon=1e-3, **ALL))
    windows = windows_of(x, 3)
    covariance = np.cov(windows.T)
    values, axes = np.linalg.eigh(covariance)
    matrix = axes @ np.diag((values + 1e-3 * values.mean()) ** -0.5) @ axes.T
    # Row of channel c at tap t: 9 c + t; 4 is the middle, 1 the first of those beside it.
    assert float(cosines_to(conv.weight.detach().flatten(1), matrix[[4, 13, 22, 1, 10]]).min()) > 1 - 1e-5


def test_k_means_filters_are_scikit_learns_centres_taken_back() -> None:
    x, conv = images(), nn.Conv2d(3, 6, 3)
    initialise_(conv, KMeans([x], gain=1.0, epsilon=0.1, **ALL), seed=7)
    raw = windows_of(x, 3).astype(np.float32)
    centred = raw - raw.mean(1, keepdims=True)
    power = (centred**2).mean(1, keepdims=True)
    normal = centred / np.sqrt(power + 0.01 * power.mean())
    values, axes = np.linalg.eigh(np.cov(normal.T))
    matrix = axes @ np.diag((values.clip(0) + 0.1 * values.mean()) ** -0.5) @ axes.T
    white = (normal - normal.mean(0)) @ matrix
    # What the seed means to scikit-learn is ours to say; its optimum from there is not.
    generator = torch.Generator().manual_seed(7)
    torch.randint(2**31 - 1, (), generator=generator)  # the places
    state = int(torch.randint(2**31 - 1, (), generator=generator))
    centres = TheirKMeans(6, n_init=1, random_state=state).fit(white.astype(np.float64)).cluster_centers_
    back = centres @ matrix
    back -= back.mean(1, keepdims=True)
    assert float(cosines_to(conv.weight.detach().flatten(1), back).min()) > 0.999


def test_k_means_finds_planted_patterns() -> None:
    """Windows that are one of three kinds: every kind is one filter's."""
    kinds = functional.normalize(torch.randn(3, 16) - 0.0)
    rows = kinds.repeat_interleave(200, 0) * 5 + 0.05 * torch.randn(600, 16)
    layer = nn.Linear(16, 3)
    initialise_(layer, KMeans([rows], **ALL))
    answers = layer(contrast_normalised(rows, floor=0.0)).detach()
    by_kind = answers.reshape(3, 200, 3).argmax(2)
    assert sorted(by_kind[:, 0].tolist()) == [0, 1, 2] and bool((by_kind == by_kind[:, :1]).all())


@pytest.mark.parametrize("shape", [(4, 2, 6, 8), (4, 3, 10)])
def test_patches_are_those_of_unfold(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape)
    kernel = tuple(side // 2 for side in shape[2:])
    if len(shape) == 4:
        expected = functional.unfold(x, kernel).transpose(1, 2)
    else:
        expected = functional.unfold(x[:, :, None], (1, *kernel)).transpose(1, 2)
    torch.testing.assert_close(_patches(x, kernel), expected)


def test_the_best_match_is_that_of_two_loops() -> None:
    patches, centres = torch.randn(7, 5, 4), torch.randn(3, 4)
    which, best = best_matches(patches, centres)
    for window in range(7):
        _, place, centre = max(
            (float(patches[window, p] @ centres[c]), p, c) for p in range(5) for c in range(3)
        )
        assert int(which[window]) == centre and torch.equal(best[window], patches[window, place])


def test_convolutional_k_means_does_not_spend_filters_on_shifts() -> None:
    """One pattern anywhere in the window: k-means on fixed places learns several shifts of it."""
    generator = torch.Generator().manual_seed(0)
    bar = torch.tensor([[1.0, 1, 1], [-1, -1, -1], [1, 1, 1]])
    slash = torch.tensor([[-1.0, -1, 2], [-1, 2, -1], [2, -1, -1]])
    x = torch.zeros(400, 1, 6, 6)
    for image in x:
        row, column, kind = torch.randint(0, 4, (3,), generator=generator).tolist()
        image[0, row : row + 3, column : column + 3] = bar if kind % 2 else slash
    x += 0.05 * torch.randn(x.shape, generator=generator)
    # With little whitening, so that filters look like the patterns themselves.
    options = {"gain": 1.0, "epsilon": 100.0}
    answers = {}
    for how in (
        ConvKMeans([x], windows=400, per_example=1, iterations=20, **options),
        KMeans([x], **options),
    ):
        conv = nn.Conv2d(1, 2, 3, bias=False)
        initialise_(conv, how, seed=1)
        patches = functional.normalize(
            contrast_normalised(functional.unfold(x, 3).mT.flatten(0, 1), floor=0.01), dim=1
        )
        found = patches @ conv.weight.detach().flatten(1).T
        answers[type(how)] = float(found.reshape(400, -1).amax(1).mean())
    assert answers[ConvKMeans] > 0.9 > 0.8 > answers[KMeans]


HOWS = [PCA, ZCA, KMeans, ConvKMeans]


@pytest.mark.parametrize("how", HOWS)
def test_filters_have_hes_norm_and_follow_the_seed(how: type[Initialiser]) -> None:
    x = images()
    convs = [nn.Conv2d(3, 6, 3, padding=1) for _ in range(3)]
    for conv, seed in zip(convs, (1, 1, 2), strict=True):
        initialise_(conv, how([x], per_example=4), seed=seed)  # type: ignore[call-arg]
    torch.testing.assert_close(
        convs[0].weight.detach().flatten(1).norm(dim=1), torch.full((6,), math.sqrt(2))
    )
    assert torch.equal(convs[0].weight, convs[1].weight) and not torch.equal(convs[0].weight, convs[2].weight)


@pytest.mark.parametrize("how", HOWS)
def test_deeper_layers_learn_from_what_the_new_ones_write(how: type[Initialiser]) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 4, 2)
    )
    with torch.no_grad():
        net[0].weight.zero_()  # what they would read of the old one is nothing
    report = initialise_(net, how([images(side=16)]))  # type: ignore[call-arg]
    assert [one.layer for one in report] == ["0", "2", "4"]
    assert bool(torch.isfinite(net(images(4))).all())


@pytest.mark.parametrize("how", HOWS)
def test_constant_images_are_refused(how: type[Initialiser]) -> None:
    with pytest.raises(InputError, match=r"constant|alike|varies along 0 of 27"):
        initialise_(nn.Conv2d(3, 4, 3), how([torch.full((32, 3, 12, 12), 0.3)]))  # type: ignore[call-arg]


@pytest.mark.parametrize("how", HOWS)
def test_nan_in_the_data_is_refused(how: type[Initialiser]) -> None:
    x = images()
    x[3, 1] = torch.nan
    with pytest.raises(InputError, match=r"what Conv2d reads holds .* NaN"):
        initialise_(nn.Conv2d(3, 4, 3), how([x], per_example=1000))  # type: ignore[call-arg]


@pytest.mark.parametrize("how", HOWS)
def test_too_few_windows_are_refused(how: type[Initialiser]) -> None:
    with pytest.raises(InputError, match=r"4 windows for (6|12) filters"):
        initialise_(nn.Conv2d(3, 6, 3), how([images(4)], per_example=1))  # type: ignore[call-arg]


def test_more_filters_than_directions_are_refused_where_there_are_no_more() -> None:
    for how in (PCA, ZCA):
        with pytest.raises(InputError, match="takes 28 filters, and there are only 27 directions"):
            initialise_(nn.Conv2d(3, 28, 3), how([images()]))
    initialise_(nn.Conv2d(3, 40, 3), KMeans([images()]))  # overcomplete is fine


def test_directions_without_variance_are_no_axes() -> None:
    grey = images(channels=1).expand(-1, 3, -1, -1)
    initialise_(nn.Conv2d(3, 9, 3), PCA([grey]))
    with pytest.raises(InputError, match="takes 10 filters, and what it reads varies along 9 of 27"):
        initialise_(nn.Conv2d(3, 10, 3), PCA([grey]))


def test_as_many_distinct_windows_as_clusters_are_needed() -> None:
    rows = torch.eye(4)[torch.arange(100) % 4]
    with pytest.raises(InputError, match="4 distinct windows for 5 filters"):
        initialise_(nn.Linear(4, 5), KMeans([rows]))


def test_convolutional_k_means_needs_places() -> None:
    for layer, x in ((nn.Conv2d(3, 4, 1), images()), (nn.Linear(5, 4), torch.randn(50, 5))):
        with pytest.raises(InputError, match="kernels of one position"):
            initialise_(layer, ConvKMeans([x]))


@pytest.mark.parametrize(("option", "value"), [("windows", 0), ("per_example", 0), ("gain", 0.0)])
def test_bad_options_are_refused(option: str, value: float) -> None:
    for how in HOWS:
        with pytest.raises(InputError, match=f"{how.__name__}: {option} must be"):
            how([images()], **{option: value})
        with pytest.raises(InputError, match=rf"{how.__name__}: batches are .* write \[tensor\]"):
            how(images())
    with pytest.raises(InputError, match="iterations"):
        ConvKMeans([images()], iterations=0)
