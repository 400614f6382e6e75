"""Windows of what a layer reads, against unfold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from compressor.core.tape import named_tensors
from compressor.design.layer import Layer, WeightLayer
from compressor.design.reading import order_of_calls, windows_read
from compressor.errors import InputError


def layer_of(net: nn.Module, path: str) -> Layer:
    module = net.get_submodule(path)
    assert isinstance(module, WeightLayer)
    names = {id(tensor): name for name, tensor in named_tensors(net).items()}
    flags = torch.ones(len(module.weight), dtype=torch.bool)
    return Layer(path, names[id(module.weight)], net, module, flags, torch.device("cpu"))


def read(net: nn.Module, path: str, batches: list[Tensor], **options: int) -> Tensor:
    options = {"count": 10_000, "per_example": 10_000, **options}
    return windows_read(layer_of(net, path), batches, generator=torch.Generator().manual_seed(0), **options)


@pytest.mark.parametrize(
    ("conv", "times"),
    [
        (nn.Conv2d(3, 4, 3, padding=1), 1),
        (nn.Conv2d(3, 4, (3, 2), stride=2), 1),
        (nn.Conv2d(3, 4, 3, padding=2, dilation=2), 1),
        (nn.Conv2d(3, 4, 3, padding="same"), 2),
    ],
)
def test_all_windows_are_those_of_unfold_without_padding(conv: nn.Conv2d, times: int) -> None:
    x = torch.randn(2, 3, 9, 10)
    sizes = tuple(times * k for k in conv.kernel_size)
    expected = functional.unfold(x, sizes, dilation=conv.dilation)  # [N, C * k, places], stride 1
    found = read(nn.Sequential(conv), "0", [x], times=times)
    assert found.shape[2:] == (3, *sizes)
    torch.testing.assert_close(found[0].flatten(1), expected.transpose(1, 2).flatten(0, 1))


def test_windows_are_of_what_the_layer_reads_in_eval_mode() -> None:
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv1d(4, 2, 5))
    x = torch.randn(3, 2, 12)
    with torch.no_grad():
        inner = net.eval()[:4](x)
    net.train()
    found = read(net, "4", [x])
    expected = inner.unfold(2, 5, 1).transpose(1, 2).flatten(0, 1)  # [N * places, C, 5]
    torch.testing.assert_close(found[0], expected)
    assert net.training


def test_groups_read_their_own_channels() -> None:
    x = torch.randn(2, 6, 5, 5)
    found = read(nn.Sequential(nn.Conv2d(6, 6, 3, groups=3)), "0", [x])
    for group, own in enumerate(x.split(2, dim=1)):
        expected = functional.unfold(own, 3).transpose(1, 2).flatten(0, 1)
        torch.testing.assert_close(found[group].flatten(1), expected)


def test_rows_of_a_matrix() -> None:
    x = torch.randn(2, 7, 4)
    torch.testing.assert_close(read(nn.Sequential(nn.Linear(4, 3)), "0", [x])[0], x.flatten(0, 1))


def test_batches_are_read_until_there_are_enough() -> None:
    asked = []

    class Batches:
        def __iter__(self):  # type: ignore[no-untyped-def]
            for number in range(5):
                asked.append(number)
                yield torch.randn(4, 3, 8, 8)

    found = windows_read(
        layer_of(nn.Sequential(nn.Conv2d(3, 4, 3)), "0"),
        Batches(),
        count=50,
        per_example=7,
        generator=torch.Generator(),
    )
    assert found.shape == (1, 50, 3, 3, 3) and asked == [0, 1]


def test_places_follow_the_generator() -> None:
    net, x = nn.Sequential(nn.Conv2d(3, 4, 3)), torch.randn(4, 3, 16, 16)
    layer = layer_of(net, "0")
    found = [
        windows_read(layer, [x], count=99, per_example=5, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_windows_that_do_not_fit_are_refused() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    with pytest.raises(
        InputError, match="windows of 3 x 3 do not fit into the 2 x 8 positions that it reads"
    ):
        read(net, "0", [torch.randn(1, 3, 2, 8)])
    with pytest.raises(InputError, match="windows of 6 x 6"):
        read(net, "0", [torch.randn(1, 3, 5, 5)], times=2)


def test_transposed_convolutions_and_nan_are_refused() -> None:
    with pytest.raises(InputError, match="transposed convolution multiply no window"):
        read(nn.Sequential(nn.ConvTranspose2d(3, 4, 3)), "0", [torch.randn(1, 3, 5, 5)])
    with pytest.raises(InputError, match="what 0 reads holds 1 value that is NaN"):
        read(nn.Sequential(nn.Linear(2, 2)), "0", [torch.tensor([[1.0, torch.nan]])])


def test_the_order_is_that_of_the_first_calls() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.twice, self.unused = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.twice(self.last(self.twice(x)))
            return out

    assert order_of_calls(Net(), [torch.ones(1, 2)]) == ("twice.weight", "last.weight")
