"""BatchNorm statistics measured anew."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.errors import InputError, RecoveryError
from compressor.observing import across, loaded, merged, running
from compressor.observing.batches import device_of, output_of
from compressor.observing.moments import Moments, moments_of
from compressor.observing.precision import widened
from compressor.observing.processes import Processes

__all__ = ["reestimate_batch_norm_"]


def reestimate_batch_norm_(
    model: nn.Module,
    batches: Iterable[object],
    *,
    max_batches: int | None = None,
    processes: Processes | None = None,
) -> int:
    """The number of batches from which the running statistics of every BatchNorm were measured.

    In one pass: while a batch runs, every BatchNorm normalises by that batch, as in training, and what it
    read enters sums in float64. Its running mean becomes the mean over all positions of all examples, its
    running variance their variance about that mean, so batches of unequal size count by their examples.
    With `processes="all"` each process reads its own share of the data, and all get the same, see `score`.
    Nothing else changes: dropout stays off, momentum and the number of batches tracked are as before.

    After a cut this alone brings back much of the accuracy. After `reconstruct_` it does harm: weights were
    fitted to the statistics as they are.

    Raises InputError where the model has no BatchNorm with running statistics, where there is no batch, or
    where a BatchNorm sees a single value for each channel, and RecoveryError for values that are not
    finite or a BatchNorm that is never called. The model is then as it was.

    *Source: M. Nagel et al., 2019, arXiv 1906.04721, section 4.2 call it empirical; the one-pass form with
    batch statistics: S. Ioffe, C. Szegedy, 2015, arXiv 1502.03167, algorithm 2.* Departure: the variance
    includes that between batch means and is the unbiased one over all examples.

    >>> net = nn.Sequential(nn.BatchNorm1d(1))
    >>> reestimate_batch_norm_(net, [torch.tensor([[1.0], [3.0]]), torch.tensor([[5.0], [7.0]])])
    2
    >>> net[0].running_mean.item(), round(net[0].running_var.item(), 4)
    (4.0, 6.6667)
    """
    norms = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }
    if not norms:
        raise InputError(
            f"{type(model).__name__} has no BatchNorm with running statistics "
            "(track_running_stats=True), so there is nothing to measure anew"
        )
    statistics = {name: _Statistics(name) for name in norms}
    handles, count = [], 0
    try:
        with running(model):
            for name, norm in norms.items():
                norm.training = True
                handles.append(norm.register_forward_pre_hook(statistics[name].see))
            for batch in loaded(batches, device_of(model), max_batches=max_batches):
                output_of(model, batch)
                count += 1
    finally:
        for handle in handles:
            handle.remove()
    with across(processes):
        found = {name: one.statistics() for name, one in statistics.items()}
    with torch.no_grad():
        for name, (mean, variance) in found.items():
            norm = norms[name]
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
    return count


class _Statistics:
    """The moments of each channel that a BatchNorm reads, merged batch by batch."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._moments: Moments | None = None

    def see(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """A hook that takes in what the norm is about to read [N, C, …]."""
        if not args[0].numel():
            return  # a batch without an example adds nothing
        values = widened(args[0].detach())
        own = moments_of(values, [dim for dim in range(values.dim()) if dim != 1])
        if not torch.isfinite(own.m2).all():
            raise RecoveryError(
                f"BatchNorm {self._name!r} reads values that are not finite; look for NaN in the batch or "
                "the weights"
            )
        if own.count < 2:
            raise InputError(
                f"BatchNorm {self._name!r} reads one value for each channel, which has no variance; give "
                "batches of at least two examples"
            )
        self._moments = own if self._moments is None else self._moments.merge_(own)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """The mean and the unbiased variance [C], over all processes that take part."""
        if self._moments is None:
            raise RecoveryError(
                f"BatchNorm {self._name!r} was called by no batch, or by none with an example, so nothing is "
                "known of its statistics; does the forward in eval mode leave it out?"
            )
        own = self._moments
        count = merged(torch.tensor(float(own.count), dtype=torch.float64)).item()
        mean = merged(own.mean * own.count) / count
        apart = (own.mean - mean).square() * own.count
        return mean, merged(own.m2 + apart) / (count - 1)
