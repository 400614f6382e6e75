"""MaskSparsity: the plan is the mask, and exactly its channels are trained to zero."""

from __future__ import annotations

from compressor.core.graph import Graph
from compressor.core.plan import Plan
from compressor.errors import InputError
from compressor.training.sparsity.forms import Form
from compressor.training.sparsity.on_slices import SliceRegularizer, pushes
from compressor.training.sparsity.targets import planned, targets

__all__ = ["MaskSparsity"]


class MaskSparsity(SliceRegularizer):
    """Drives the norm scales of the channels that `plan` removes to zero, by `form`; no other number.

    `graph` is a capture of the model that is trained, and `plan` one of its plans, from any scorer or
    budget. The scales are γ of BatchNorm, GroupNorm, LayerNorm, InstanceNorm and RMSNorm; `form` is one of
    `forms`: `Subgradient(5e-4)` is the paper's, `Proximal(Within(rates))` ends in exact zeros, `Decay(steps)`
    too, and needs no tuning.

    Let the channels be at zero well before the training ends, at half of its steps say (`Decay(steps // 2)`,
    `Within(rates[: len(rates) // 2])`): the rest adapts best while it still learns.

    - `writers`: the form for filters and matrices that a reader hears although all these scales are zero,
      as no norm with a scale stands between (a group lasso; see `penalties.lasso`). Where there are such
      and no form is given, InputError names them.
    - `shift`: the form for β of the same norms and the biases of those writers. Without it a silenced channel
      still emits a constant, act(β), which `recovery.remove_silenced` folds into its readers: exactly, but
      for the borders of zero-padded convolutions, and where no gate multiplies it. `Decay(steps)` brings β
      to zero as well.

    Departures: the mask is that of the plan, in which coupled channels go together (the original votes
    over the layers of a residual stream), and removal goes by the plan, not by a second threshold.

    Raises PlanMismatchError for a plan of another model, InputError for one that removes nothing.

    *Source: N. Jiang, X. Zhao, C. Zhao, Y. An, M. Tang, J. Wang, 2022, arXiv 2201.06776.*

    >>> import torch, compressor as cp
    >>> from compressor.training import sparsity
    >>> net = torch.nn.Sequential(
    ...     torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 2, 3)
    ... )
    >>> graph = cp.capture(net, torch.rand(2, 3, 8, 8))
    >>> plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Uniform(0.5))
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    >>> regularizer = MaskSparsity(plan, graph, sparsity.Proximal(sparsity.Within([0.1] * 20)))
    >>> regularizer
    MaskSparsity(4 channels of 1 parameters: Proximal(strength=1.0))
    >>> with regularizer.attach(optimizer):
    ...     for _ in range(20):
    ...         optimizer.zero_grad()
    ...         net(torch.rand(2, 3, 8, 8)).square().mean().backward()
    ...         optimizer.step()
    >>> int((net[1].weight == 0).sum())
    4
    """

    def __init__(
        self, plan: Plan, graph: Graph, form: Form, *, writers: Form | None = None, shift: Form | None = None
    ) -> None:
        found = targets(graph, planned(plan, graph))
        if found.writers and writers is None:
            names = ", ".join(repr(slices.name) for slices in found.writers[:5])
            more = ", …" if len(found.writers) > 5 else ""
            none = "" if found.scales else " (the plan cuts no norm that has scales)"
            raise InputError(
                f"MaskSparsity: {len(found.writers)} weights write planned channels that are read without a "
                f"norm's scale in between{none}: {names}{more}. Give a form for their slices, such as "
                f"writers=Proximal(Within(rates)) (a group lasso), or leave these layers out of the plan "
                f"(budget option `ignore`)"
            )
        if shift is not None and not found.shifts:
            raise InputError("MaskSparsity: `shift` is given, and no planned channel has one")
        chosen = [(found.scales, form)]
        if writers is not None:
            chosen.append((found.writers, writers))
        if shift is not None:
            chosen.append((found.shifts, shift))
        super().__init__(pushes(graph, chosen))
