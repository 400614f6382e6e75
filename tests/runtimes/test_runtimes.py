"""What each runtime makes of a model: the same numbers, its own options, and everything put back."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compressor.errors import ExportError, InputError
from compressor.profiling import latency, measure_latency
from compressor.runtimes import Compiled, Eager, OnnxRuntime, Optimization


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Y = a @ w + b, a file of two inputs."""
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    float_ = TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", float_, [1, 2]), helper.make_tensor_value_info("b", float_, [3])],
        [helper.make_tensor_value_info("y", float_, [1, 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path = tmp_path_factory.mktemp("files") / "product.onnx"
    onnx.save(model, str(path))
    return path


A, B = torch.tensor([[1.0, 2.0]]), torch.tensor([10.0, 20.0, 30.0])


@pytest.mark.parametrize(("args", "kwargs"), [((A, B), {}), ((A,), {"b": B}), ((), {"b": B, "a": A})])
def test_a_file_gets_its_inputs_in_order_or_by_name(
    product: Path, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]
) -> None:
    with OnnxRuntime().ready([product], args, kwargs) as ready:
        (output,) = ready.calls[0]()
    assert output.tolist() == [[16.0, 29.0, 42.0]]  # 1*[0,1,2] + 2*[3,4,5] + b


@pytest.mark.parametrize(("args", "kwargs"), [((A,), {}), ((A, B, B), {}), ((A, B), {"c": B})])
def test_inputs_that_do_not_fit_a_file_are_refused(
    product: Path, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(InputError, match="has the inputs a, b; got"):
        latency(product, product, *args, kwargs=kwargs, runtime=OnnxRuntime())


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(ExportError, match=r"cannot load .*broken\.onnx"):
        latency(broken, broken, A, runtime=OnnxRuntime())


def test_a_module_runs_in_onnxruntime_and_computes_the_same() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
    x = torch.rand(2, 3, 6, 6)
    with OnnxRuntime(optimization=Optimization.EXTENDED).ready([net], (x,), {}) as ready:
        (output,) = ready.calls[0]()
    assert net.training
    torch.testing.assert_close(torch.from_numpy(output), net.eval()(x))


def test_inputs_that_a_module_cannot_take_are_named() -> None:
    with pytest.raises(InputError, match=r"Linear fails on inputs of shape \[\(3, 5\)\]: RuntimeError: mat1"):
        latency(nn.Linear(4, 2), nn.Linear(4, 2), torch.rand(3, 5), runtime=OnnxRuntime())


def test_a_compiled_module_computes_the_same() -> None:
    torch.manual_seed(0)
    net, x = nn.Linear(4, 2), torch.rand(3, 4)
    with Compiled().ready([net], (x,), {}) as ready:
        torch.testing.assert_close(ready.calls[0](), net(x))
    assert type(net) is nn.Linear


def test_a_module_that_cannot_be_compiled_is_named() -> None:
    with pytest.raises(InputError, match=r"torch.compile cannot run Linear here"):
        latency(nn.Linear(4, 2), nn.Linear(4, 2), torch.rand(3, 5), runtime=Compiled())


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin a process")
def test_a_pinned_process_is_let_go_afterwards() -> None:
    before = os.sched_getaffinity(0)
    core = min(before)
    with Eager(pin=core).ready([nn.Identity()], (A,), {}):
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before
    with pytest.raises(InputError, match="pin = 4096: this process may run on the cores"):
        measure_latency([nn.Identity()], (A,), runtime=Eager(pin=4096))


@pytest.mark.parametrize("options", [{"threads": 0}, {"threads": True}, {"threads": 2, "pin": 0}])
def test_options_that_make_no_sense_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(InputError, match="threads"):
        Eager(**options)
