"""Adversarial training: a second network learns to tell outputs from targets, and the model to deceive it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from compressor.core.restoring import modes_kept
from compressor.core.tape import named_tensors
from compressor.errors import InputError, TrainingError
from compressor.training import processes
from compressor.training.attaching import AttachedLoss, LastCall, Loss, ModelLoss, check_devices
from compressor.training.checkpoint import check_model, copy_tensors_, tensors_of
from compressor.training.precision import at_least_float32

__all__ = ["Adversarial", "ChangedPixels"]

# From input and target of a batch to what the discriminator may see of both, 0 and 1 [like the target].
Mask = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class ChangedPixels:
    """A mask of the pixels in which input and target differ by `threshold` or more: |x − y| ≥ threshold.

    *Source: the released code of M. Tabassian et al. 2024, arXiv 2401.13147*, whose discriminator is shown
    nothing but what clutter had covered.

    >>> ChangedPixels(0.1)(torch.tensor([0.0, 0.5]), torch.tensor([0.05, 1.0]))
    tensor([0., 1.])
    """

    threshold: float = 0.1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.threshold) and self.threshold > 0):
            raise InputError(f"ChangedPixels: threshold must be positive and finite, got {self.threshold!r}")

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        if x.shape != y.shape:
            raise InputError(
                f"ChangedPixels: input and target must have one shape to be compared, got {list(x.shape)} "
                f"and {list(y.shape)}"
            )
        return ((x - y).abs() >= self.threshold).to(y)


def _adam(parameters: Iterable[nn.Parameter]) -> Optimizer:
    return torch.optim.Adam(parameters, lr=1e-4)


@dataclass(frozen=True, eq=False)
class Adversarial(ModelLoss):
    """The loss (1 − weight) · task(output, target) + weight · BCE(D(output), 1), and D's training beside it.

    Before each loss (of every batch, where steps accumulate some) the discriminator D takes two steps of its
    own: one towards 1 on the targets, one towards 0 on the model's outputs. The numbers are those of the
    clutter filter: 0.999 and 0.001, and Adam with a rate of 1e-4 for D; the model's own optimizer there is
    `Recipe(lr=1e-4, optimizer=partial(torch.optim.Adam, betas=(0.5, 0.999)))`.

    - `discriminator`: any network from outputs [N, ...] to logits, [N] or [N, 1]. It is trained in place,
      and stays on the model's device.
    - `mask(input, target)`, `ChangedPixels()` as published: what D is shown of targets and outputs in its own
      steps. The published code shows it whole outputs when the model learns from it, images of a kind that D
      has not seen; with `mask_model=True` it sees masked ones there, too.
    - `fresh`: D learns from outputs in eval mode, as published, for which the model runs once more; without,
      from those of the step itself.

    In the model's loss D is in eval mode and is no part of what gets gradients. Its steps are done in the
    precision of its weights, whatever the recipe's autocast. `fine_tune_` keeps D and its optimizer in the
    checkpoint, and takes back its steps where the model's step fails. In several processes D has the same
    weights everywhere, and steps by the mean of their gradients.

    Raises InputError for outputs that are no tensors, logits of another shape, devices that differ;
    TrainingError where D's loss is not finite.

    *Source: I. Goodfellow et al., 2014, arXiv 1406.2661, algorithm 1*, with the model's loss of section 3's
    end (log D(G) instead of log(1 − D(G))); *M. Tabassian et al., 2024, arXiv 2401.13147* and its code.

    >>> from compressor.training import Recipe, fine_tune_
    >>> model, judge = nn.Linear(4, 4), nn.Linear(4, 1)
    >>> batches = [(torch.rand(8, 4), torch.rand(8, 4))]
    >>> len(fine_tune_(model, batches, Adversarial(judge), Recipe(epochs=2)).losses)
    2
    """

    discriminator: nn.Module = field(repr=False)
    task: Loss = F.mse_loss
    weight: float = 0.001
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = _adam
    mask: Mask | None = None
    mask_model: bool = False
    fresh: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.weight < 1:
            raise InputError(f"Adversarial: weight must lie between 0 and 1, got {self.weight!r}")
        if not isinstance(self.discriminator, nn.Module):
            raise InputError(
                f"Adversarial: the discriminator must be a torch.nn.Module, got "
                f"{type(self.discriminator).__name__}"
            )
        if self.mask_model and self.mask is None:
            raise InputError("Adversarial: mask_model=True needs a mask, such as mask=ChangedPixels()")

    def attach(self, model: nn.Module) -> AttachedLoss:
        """The loss of this model; `remove()` (or the end of a `with`) lets go of it."""
        check_devices("Adversarial", {"model": model, "discriminator": self.discriminator})
        shared = {id(p) for p in model.parameters()} & {id(p) for p in self.discriminator.parameters()}
        if shared:
            raise InputError(
                f"Adversarial: model and discriminator share {len(shared)} parameter(s), and would train "
                f"them against each other; give them weights of their own (copy.deepcopy)"
            )
        check_model(self.discriminator)
        return _Competing(self, model)


class _Competing(AttachedLoss):
    """What the model was called with, the discriminator and its optimizer."""

    def __init__(self, options: Adversarial, model: nn.Module) -> None:
        self._options, self._model = options, model
        self._judge = options.discriminator
        learning = [parameter for parameter in self._judge.parameters() if parameter.requires_grad]
        if not learning:
            raise InputError("Adversarial: the discriminator has no parameter that may be trained")
        self._optimizer = options.optimizer(learning)
        self._modes = ExitStack()
        self._modes.enter_context(modes_kept(self._judge))
        processes.same_tensors_(self._judge)
        self._call = LastCall(model, loss="Adversarial")

    def __call__(self, output: Any, target: Any) -> Tensor:
        """The loss of the model's last forward pass, after the discriminator's two steps."""
        options = self._options
        args, kwargs = self._call.take()
        for name, value in (("output", output), ("target", target)):
            if not isinstance(value, Tensor):
                raise InputError(f"Adversarial: expected the {name} as a tensor, got {type(value).__name__}")
        mask = None if options.mask is None else options.mask(_first_tensor(args, kwargs), target)
        with torch.autocast(output.device.type, enabled=False):
            fakes = self._fresh(args, kwargs) if options.fresh else output.detach()
            processes.same_buffers_(self._judge)
            self._judge.train()
            self._learn(_masked(target, mask), truth=1.0)
            self._learn(_masked(fakes, mask), truth=0.0)
        self._judge.eval()
        seen = _masked(output, mask) if options.mask_model else output
        fixed = {name: parameter.detach() for name, parameter in self._judge.named_parameters()}
        logits = torch.func.functional_call(self._judge, fixed, (seen,))
        deceived = _entropy(logits, seen, truth=1.0)
        return (1 - options.weight) * options.task(output, target) + options.weight * deceived

    def remove(self) -> None:
        """Stop watching, and give the discriminator its modes back."""
        self._call.remove()
        self._modes.close()
        self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Copies of the discriminator's tensors and of its optimizer's state."""
        return {
            "discriminator": tensors_of(self._judge),
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned. Raises InputError for that of another discriminator."""
        if set(state) != {"discriminator", "optimizer"}:
            raise InputError(
                f"expected the state of a discriminator and its optimizer, got "
                f"{', '.join(state) or 'none'}: the training had no adversarial loss"
            )
        before = {name: list(tensor.shape) for name, tensor in state["discriminator"].items()}
        now = {name: list(tensor.shape) for name, tensor in named_tensors(self._judge).items()}
        for name in dict.fromkeys((*before, *now)):
            if before.get(name) != now.get(name):
                raise InputError(
                    f"another discriminator: {name!r} has shape {before.get(name)} there and {now.get(name)} "
                    f"here"
                )
        try:
            self._optimizer.load_state_dict(state["optimizer"])
        except ValueError as error:
            raise InputError(f"another optimizer of the discriminator: {error}") from error
        copy_tensors_(self._judge, state["discriminator"])

    def _fresh(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """The model's outputs in eval mode; its modes are given back."""
        with modes_kept(self._model), torch.no_grad():
            self._model.eval()
            fakes: Tensor = self._model(*args, **kwargs)
        return fakes

    def _learn(self, images: Tensor, *, truth: float) -> None:
        """One step of the discriminator towards `truth` on these images."""
        wide = images.to(next(self._judge.parameters()).dtype)
        self._optimizer.zero_grad()
        loss = _entropy(self._judge(wide), wide, truth=truth)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the discriminator's loss on {'targets' if truth else 'outputs'} is {loss.item()}, a "
                f"finite number is needed; training was stopped. Lower the rate of its optimizer, or look "
                f"for NaN in the batch"
            )
        loss.backward()
        processes.mean_gradients_(self._judge.parameters())
        self._optimizer.step()


def _masked(images: Tensor, mask: Tensor | None) -> Tensor:
    return images if mask is None else images * mask


def _entropy(logits: Any, images: Tensor, *, truth: float) -> Tensor:
    """The mean [] of −log p of `truth`, p the sigmoid of the logits of each image."""
    if not isinstance(logits, Tensor) or logits.shape not in ((len(images),), (len(images), 1)):
        found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"Adversarial: the discriminator must return one logit for each of {len(images)} images, "
            f"[{len(images)}] or [{len(images)}, 1], got {found}"
        )
    wide = at_least_float32(logits)
    return F.binary_cross_entropy_with_logits(wide, torch.full_like(wide, truth))


def _first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The input that a mask compares with the target."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            return value
    raise InputError(
        "Adversarial: the mask needs an input to compare with, and the model was given no tensor"
    )
