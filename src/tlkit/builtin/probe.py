"""The head ``probe``: logistic regression, linear or with a kernel, that fits itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlkit.builtin.head_modules import Average
from tlkit.utils.kernel import Kernel, hellinger, kernel_values
from tlkit.utils.logistic import Rotation, draw_folds, solve

#: Inverse penalties that are tried, of features whose mean length is 1, and of a kernel.
LINEAR_STRENGTHS = tuple(4.0**power for power in range(-2, 7))
KERNEL_STRENGTHS = tuple(4.0**power for power in range(-2, 6))
#: The buffers of the kernel form.
KERNEL_STATE = ("support", "coefficients", "offset", "precision")
#: Folds among a probe's own training images, how many predictions its choice rests on where there are so many
#: images, and how often the folds are drawn at most where there are not.
FOLDS = 5
PREDICTIONS = 200
MAX_REPEATS = 5
#: The solver's tolerance for the probe itself.
PRECISE = 1e-5
#: Images that forms and strengths are compared on: all, or of more a random sample.
MAX_COMPARED = 4000
#: Logits that are held at a time.
MAX_LOGITS = 2**25


@dataclass(frozen=True)
class _Form:
    """A form of the probe with its best strength.

    Attributes:
        name: "linear" or "kernel".
        loss: its log loss out of fold, in nats; with several labels per image, the classes' mean.
        strengths: the inverse penalty, or that of each class.
        weight: for its features, ``(K, D)``.
        bias: ``(K,)``.
    """

    name: str
    loss: float
    strengths: tuple[float, ...]
    weight: Tensor
    bias: Tensor

    def describe(self) -> str:
        """Describes its loss and strength, such as "linear 0.0425 at C = 16"."""
        weakest, strongest = min(self.strengths), max(self.strengths)
        up_to = f" to {strongest:g}" if strongest > weakest else ""
        return f"{self.name} {self.loss:.4f} at C = {weakest:g}{up_to}"


class Probe(nn.Module):
    """Multinomial logistic regression on pooled features; with several labels per image, one for each class.

    Attributes:
        fc: the linear form; what gradient steps train.
        support: transformed features that the kernel compares with, ``(S, C)``; None: the form is linear, and
            the head's state is that of a linear layer.
        coefficients: of the kernel's values, ``(K, S)``.
        offset: the kernel form's bias, ``(K,)``.
        precision: the kernel is ``exp(-precision * squared distance)``.
    """

    support: Tensor | None
    coefficients: Tensor | None
    offset: Tensor | None
    precision: Tensor | None

    def __init__(self, shape: Sequence[int], classes: int, *, kernel: bool) -> None:
        """Makes an unfitted, linear probe for features of `shape`, without the batch."""
        super().__init__()
        self.pool = Average(shape)
        self.fc = nn.Linear(self.pool.width, classes)
        self.tries_kernel = kernel
        for name in KERNEL_STATE:
            self.register_buffer(name, None)

    def forward(self, features: Tensor) -> Tensor:
        """Maps features ``(B, C, h, w)``, ``(B, N, C)`` or ``(B, C)`` to logits ``(B, classes)``."""
        pooled = self.pool(features)
        if self.support is None or self.coefficients is None or self.precision is None:
            logits: Tensor = self.fc(pooled)
            return logits
        values = kernel_values(hellinger(pooled), self.support, self.precision)
        return nn.functional.linear(values, self.coefficients, self.offset)

    @torch.no_grad()
    def fit_features(self, features: Tensor, labels: Tensor, weights: Tensor) -> str:
        """Fits the probe, and chooses its form and strength by log loss out of fold, among these images only.

        Args:
            features: of the training images, float32 ``(N, …)``.
            labels: int64 ``(N,)``; with several labels per image, 0 or 1 for each class, ``(N, classes)``.
            weights: each image's weight in the loss, float32 ``(N,)``.

        Returns:
            What was chosen.
        """
        pooled = self.pool(features.float())
        task: _Task | _LabelTasks = (
            _Task(labels, weights, self.fc.out_features) if labels.ndim == 1 else _LabelTasks(labels, weights)
        )
        scale = pooled.norm(dim=1).mean().clamp(min=1e-12)
        forms = [task.best("linear", Rotation.of(pooled / scale), LINEAR_STRENGTHS)]
        self.fc.weight.copy_(forms[0].weight / scale)
        self.fc.bias.copy_(forms[0].bias)
        self.use_linear_form()
        if self.tries_kernel:
            self._fit_kernel(pooled, task, forms)
        chosen = min(forms, key=lambda form: form.loss)
        described = ", ".join(form.describe() for form in forms)
        return f"{chosen.name}, by log loss out of fold: {described}"

    def use_linear_form(self) -> bool:
        """Drops the kernel form, which gradient steps cannot train; see `tlkit.HasLinearForm`."""
        changes = self.support is not None
        for name in KERNEL_STATE:
            setattr(self, name, None)
        return changes

    def _fit_kernel(self, pooled: Tensor, task: _Task | _LabelTasks, forms: list[_Form]) -> None:
        """Fits the kernel form, adds it to `forms`, and keeps it if it is better than the linear one."""
        kernel = Kernel.of(pooled)
        form = task.best("kernel", Rotation.of(kernel.coordinates(pooled)), KERNEL_STRENGTHS)
        if form.loss < forms[0].loss:
            self.support, self.precision = kernel.support, kernel.precision
            self.coefficients, self.offset = form.weight @ kernel.basis.T, form.bias
        forms.append(form)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        self.use_linear_form()
        support = state_dict.get(f"{prefix}support")
        if support is not None and support.ndim:
            count, weight = len(support), self.fc.weight.detach()
            self.support = weight.new_zeros(count, self.pool.width)
            self.coefficients = weight.new_zeros(len(weight), count)
            self.offset, self.precision = weight.new_zeros(len(weight)), weight.new_zeros(())
        super()._load_from_state_dict(state_dict, prefix, *args)


class _Task:
    """The images to fit, and the folds that all forms and strengths are compared on."""

    def __init__(self, labels: Tensor, weights: Tensor, classes: int) -> None:
        self._weights = weights
        self._targets = nn.functional.one_hot(labels, classes).float()
        generator = np.random.default_rng(0)
        self._compared = torch.from_numpy(generator.permutation(len(labels))[:MAX_COMPARED])
        of_compared = labels.cpu()[self._compared].numpy()
        held_out = list(_held_out(of_compared, generator))
        self._held_out = torch.from_numpy(np.stack(held_out)).to(weights)

    def best(self, name: str, rotation: Rotation, strengths: Sequence[float]) -> _Form:
        """Returns the strength with the lowest log loss out of fold, fitted to all images."""
        losses, means = self._compare(rotation, strengths)
        index = int(losses.argmin())
        penalty = torch.tensor([1 / strengths[index]]).to(self._weights)
        weights, start = self._weights[None], means[index, None]
        solution = solve(rotation, self._targets, weights, penalty, start=start, tolerance=PRECISE)[0]
        return _Form(name, float(losses[index]), (strengths[index],), *rotation.unrotated(solution))

    def _compare(self, rotation: Rotation, strengths: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Returns each strength's log loss out of fold, ``(S,)``, and its mean solution, ``(S, R, K)``."""
        compared = self._compared.to(rotation.values.device)
        rotation = replace(rotation, values=rotation.values[compared])
        targets, weights = self._targets[compared], self._weights[compared]
        size = max(1, MAX_LOGITS // (targets.numel() * len(self._held_out)))
        losses, means = [], []
        for start in range(0, len(strengths), size):
            penalties = 1 / torch.tensor(strengths[start : start + size]).to(weights)
            masks = self._held_out.repeat(len(penalties), 1)
            of_folds = penalties.repeat_interleave(len(self._held_out))
            solutions = solve(rotation, targets, (1 - masks) * weights, of_folds)
            logits = torch.einsum("nr,prk->pkn", rotation.values, solutions)
            missed = -(logits.log_softmax(1) * targets.T).sum(1) * masks * weights
            losses.append(missed.view(len(penalties), -1).sum(1))
            means.append(solutions.view(len(penalties), len(self._held_out), *solutions.shape[1:]).mean(1))
        total = (self._held_out * weights).sum().clamp(min=1e-12)
        return torch.cat(losses) / total, torch.cat(means)


class _LabelTasks:
    """A task for each class where images may have several: images that have it, and the others."""

    def __init__(self, labels: Tensor, weights: Tensor) -> None:
        self._tasks = [_Task(has_class, weights, 2) for has_class in labels.T]

    def best(self, name: str, rotation: Rotation, strengths: Sequence[float]) -> _Form:
        """Returns each class's strength with the lowest log loss out of fold, fitted to all images."""
        forms = [task.best(name, rotation, strengths) for task in self._tasks]
        return _Form(
            name,
            sum(form.loss for form in forms) / len(forms),
            tuple(form.strengths[0] for form in forms),
            # the sigmoid of the difference is the softmax of the two
            torch.stack([form.weight[1] - form.weight[0] for form in forms]),
            torch.stack([form.bias[1] - form.bias[0] for form in forms]),
        )


def _held_out(labels: NDArray[np.int64], generator: np.random.Generator) -> Iterator[NDArray[np.bool_]]:
    """Yields which images each fold holds out, ``(N,)``: of one draw, or of several with few images."""
    predictions = 0
    for _ in range(MAX_REPEATS):
        drawn = draw_folds(labels, FOLDS, generator)
        if (drawn < 0).all():  # one image per class: nothing can be held out
            yield drawn == 0
            return
        for fold in range(FOLDS):
            held_out = drawn == fold
            if held_out.any() and predictions < PREDICTIONS:
                predictions += int(held_out.sum())
                yield held_out
