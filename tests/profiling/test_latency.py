"""How latency is measured; that it is fast or slow is no matter of tests."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import InputError
from compressor.profiling import measure_latency
from compressor.profiling.latency import _rounds, _timing
from compressor.runtimes import Eager


class Recorder(nn.Module):
    def __init__(self, name: str, log: list[tuple[str, bool, bool, int]]) -> None:
        super().__init__()
        self.name, self.log = name, log

    def forward(self, x: Tensor) -> Tensor:
        state = (self.name, self.training, torch.is_grad_enabled(), torch.get_num_threads())
        self.log.append(state)
        return x


def test_models_run_in_eval_mode_without_gradients_on_the_asked_threads() -> None:
    log: list[tuple[str, bool, bool, int]] = []
    model = nn.Sequential(Recorder("a", log), nn.Dropout())
    model[1].eval()
    before = torch.get_num_threads()
    found = measure_latency([model], [torch.zeros(2)], rounds=1, runtime=Eager(threads=2))
    assert set(log) == {("a", False, False, 2)}
    assert model[0].training and not model[1].training
    assert torch.get_num_threads() == before
    assert (found.rounds, found.clock) == (1, "wall time with 2 threads")


def test_modes_and_threads_are_restored_when_a_model_fails() -> None:
    model = nn.Linear(3, 3)
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError):
        measure_latency([model], [torch.zeros(2, 4)], runtime=Eager(threads=before + 1))
    assert model.training
    assert torch.get_num_threads() == before


def test_rounds_alternate_the_order_and_start_each_sample_warm() -> None:
    log: list[str] = []
    calls = [lambda: log.append("a"), lambda: log.append("b")]

    def clock(call, count):  # type: ignore[no-untyped-def]
        for _ in range(count):
            call()
        return 1.0

    samples = _rounds(calls, [1, 2], clock, 3)
    untimed_first = "a" + "a" + "b" + "bb", "b" + "bb" + "a" + "a"
    assert log == list(untimed_first[0] + untimed_first[1] + untimed_first[0])
    assert samples == [[1.0] * 3, [1.0] * 3]


def test_a_speedup_is_the_median_of_ratios_within_rounds() -> None:
    first, own = [10.0, 30.0, 20.0], [5.0, 10.0, 40.0]
    timing = _timing(own, first)
    assert timing.ms == 10.0
    assert timing.speedup == 2.0  # of 2, 3 and 0.5; the quotient of medians happens to be 2, too
    assert _timing([1.0, 2.0, 4.0], [3.0, 4.0, 5.0]).speedup == 2.0
    assert _timing([1.0, 9.0, 2.0], [8.0, 9.0, 6.0]).speedup == 3.0  # not 8 / 2


def test_inputs_by_keyword_reach_the_model() -> None:
    class Keyed(nn.Module):
        def forward(self, x: Tensor, *, scale: float) -> Tensor:
            return x * scale

    found = measure_latency([Keyed(), Keyed()], [torch.zeros(3)], {"scale": 2.0}, rounds=2)
    assert len(found.timings) == 2
    assert "model 1" in str(found)


@pytest.mark.parametrize(
    ("models", "options", "text"),
    [
        ([], {}, "one or more models"),
        ([1], {}, "one or more models"),
        (nn.Sequential(nn.Identity()), {}, "a list of one or more models"),
        ([nn.Identity()], {"rounds": 0}, "rounds >= 1"),
        ([nn.Identity()], {"runtime": "onnx"}, "a runtime such as"),
        ([nn.Identity()], {"warm_up": -1}, "warm_up >= 0"),
        (["net.onnx"], {}, "use OnnxRuntime"),
        ([nn.Identity()], {"seconds": 0.0}, "seconds > 0"),
        ([nn.Linear(2, 2), nn.Linear(2, 2, device="meta")], {}, "several devices"),
    ],
)
def test_nonsense_is_refused(models: object, options: dict, text: str) -> None:
    with pytest.raises(InputError, match=text):
        measure_latency(models, [torch.zeros(2)], **options)
