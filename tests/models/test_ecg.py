from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.errors import InputError
from compressor.models import create

# Name and example input; parameters at S = 10 and width 32 (12 in the 2-D network) by the layer tables.
NETS = {"ecg_cnn2d": 16_120, "ecg_cnn1d": 29_988, "ecg_cnn_lstm": 63_268}


def images(name: str, *, batch: int = 2, rows: int = 120, steps: int = 50) -> Tensor:
    shape = (batch, 1, rows, steps) if name == "ecg_cnn2d" else (batch, rows, steps)
    return torch.randn(shape)


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(("name", "expected"), NETS.items())
def test_parameters_are_those_of_the_table(name: str, expected: int) -> None:
    assert count(create(name)) == count(create(name, n_classes=4, rows=120)) == expected


def test_parameters_by_hand_at_other_sizes() -> None:
    w, rows, classes = 8, 216, 3
    convolutions = (rows * w * 5 + w) + 2 * w + (w * 2 * w * 5 + 2 * w) + 2 * (2 * w)
    head = 2 * w * classes + classes
    lstm = 4 * (2 * w) * (2 * w + 2 * w) + 8 * (2 * w)
    options = {"n_classes": classes, "rows": rows, "width": w}
    assert count(create("ecg_cnn1d", **options)) == convolutions + head
    assert count(create("ecg_cnn_lstm", **options)) == convolutions + lstm + head
    plane = 9 * (w + w * 2 * w + 2 * w * 4 * w) + 2 * (w + 2 * w + 4 * w) + 4 * w * 15 * classes + classes
    assert count(create("ecg_cnn2d", **options)) == plane


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize(("rows", "steps"), [(120, 50), (216, 500), (24, 13)])
def test_other_frequencies_and_other_times(name: str, rows: int, steps: int) -> None:
    net = create(name, rows=rows)
    assert net(images(name, rows=rows, steps=steps)).shape == (2, 4)


def test_the_plane_network_takes_rows_it_was_not_made_for() -> None:
    assert create("ecg_cnn2d")(torch.randn(2, 1, 216, 224)).shape == (2, 4)
    assert count(create("ecg_cnn2d", rows=60)) == 16_120 - 4 * 48 * (15 - 60 // 8)


def test_the_last_step_decides_in_the_lstm() -> None:
    net = create("ecg_cnn_lstm").eval()
    x = images("ecg_cnn_lstm", steps=20)
    features = net.features(x)  # type: ignore[operator]
    _, (hidden, _) = net.lstm(features.transpose(1, 2))  # type: ignore[operator]
    torch.testing.assert_close(net(x), net.classifier(hidden[0]))  # type: ignore[operator]


def test_the_one_dimensional_network_ignores_when() -> None:
    net = create("ecg_cnn1d").eval()
    x = torch.zeros(1, 120, 60)
    x[:, :, 20:30] = torch.randn(1, 120, 10)
    torch.testing.assert_close(net(x), net(x.roll(8, dims=2)))


@pytest.mark.parametrize("name", NETS)
def test_sizes_that_make_no_network(name: str) -> None:
    for option in ("n_classes", "rows", "width"):
        with pytest.raises(InputError, match=option):
            create(name, **{option: 0})


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("fraction", [0.5, 0.25])
def test_it_is_pruned_and_the_cut_is_exact_in_double(name: str, fraction: float) -> None:
    net, x = create(name), images(name)
    graph = cp.capture(net, x)
    plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Macs(fraction))
    small = cp.apply(net, plan)
    report = cp.verify(net, small, plan, x)  # runs in float64, raises where anything is off
    assert report is not None
    assert cp.profile(small, x).macs <= fraction * cp.profile(net, x).macs
    assert small(images(name, batch=3, steps=70)).shape == (3, 4)


def test_hidden_units_of_the_lstm_go_with_their_gates_and_their_column() -> None:
    net, x = create("ecg_cnn_lstm"), images("ecg_cnn_lstm")
    graph = cp.capture(net, x)
    plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Uniform(0.5))
    small = cp.apply(net, plan)
    cp.verify(net, small, plan, x)
    old, new = net.lstm, small.lstm
    assert isinstance(old, nn.LSTM) and isinstance(new, nn.LSTM)
    assert (new.input_size, new.hidden_size) == (32, 32)
    assert new.weight_ih_l0.shape == (4 * 32, 32) and new.weight_hh_l0.shape == (4 * 32, 32)
    assert new.bias_ih_l0.shape == new.bias_hh_l0.shape == (4 * 32,)
    # What stays, read off the classifier; the four gates and the recurrent column follow it.
    columns = small.classifier.weight.T  # type: ignore[operator,union-attr]
    kept = [int((column == net.classifier.weight.T).all(1).nonzero()) for column in columns]  # type: ignore[operator,union-attr,arg-type]
    assert len(set(kept)) == 32
    rows = torch.tensor([gate * 64 + unit for gate in range(4) for unit in kept])
    torch.testing.assert_close(new.bias_hh_l0, old.bias_hh_l0[rows], rtol=0, atol=0)
    torch.testing.assert_close(new.weight_hh_l0, old.weight_hh_l0[rows][:, kept], rtol=0, atol=0)


def test_only_the_rows_and_the_classes_of_the_lstm_network_are_pinned() -> None:
    net, x = create("ecg_cnn_lstm", width=8), images("ecg_cnn_lstm")
    plan = cp.plan(cp.score(cp.capture(net, x), cp.scoring.Norm()), cp.budget.Uniform(0.5))
    small = cp.apply(net, plan)
    sizes = [(m.in_channels, m.out_channels) for m in small.modules() if isinstance(m, nn.Conv1d)]
    assert sizes == [(120, 4), (4, 8)]
    lstm, classifier = small.lstm, small.classifier
    assert isinstance(lstm, nn.LSTM) and isinstance(classifier, nn.Linear)
    assert (lstm.input_size, lstm.hidden_size) == (8, 8)
    assert (classifier.in_features, classifier.out_features) == (8, 4)


@pytest.mark.parametrize("name", NETS)
def test_a_pruned_network_is_exported_and_agrees(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    net, x = create(name), images(name, batch=1)
    small = cp.prune(net, x, budget=cp.budget.Macs(0.5))
    report = cp.export.onnx(small, x, tmp_path / "small.onnx")
    assert report.agreement.error < 1e-4 and report.agreement.second_error < 1e-4
