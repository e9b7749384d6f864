"""What predictions are worth: numbers for results.json, each from the package that is known for it.

| number | source |
| --- | --- |
| `n`, `correct`, `accuracy`, `confusion` | counted with numpy |
| `ci95` | Wilson's interval of the accuracy, `scipy.stats.binomtest` |
| `log_loss` | mean of ``-ln p(true class)``, numpy; p is kept a float32 epsilon away from 0 and 1 |
| `auroc` | torchmetrics: of class 1 for two classes, else the mean over one-against-the-rest |
| `ece` | torchmetrics: expected calibration error of the top class, l1 norm, 15 bins of equal width |

The predicted class is the most probable one, and of equally probable ones the lowest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

EPSILON = float(np.finfo(np.float32).eps)
BINS = 15


def evaluate(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, Any]:
    """All numbers about a test set, as results.json has them.

    Args:
        probabilities: ``(N, classes)``; each row adds up to 1.
        labels: true classes ``(N,)``.

    Returns:
        n, correct, accuracy, ci95, log_loss, auroc, ece and confusion (a row per true class). `auroc`
        is None where a class has no image, since it is undefined then.
    """
    return {
        **summary(probabilities, labels),
        "auroc": _auroc(probabilities, labels),
        "ece": _calibration_error(probabilities, labels),
        "confusion": _confusion(probabilities, labels),
    }


def summary(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> dict[str, Any]:
    """The numbers about a validation set: n, correct, accuracy, ci95 and log_loss; see `evaluate`."""
    from scipy.stats import binomtest

    n = len(labels)
    correct = int((probabilities.argmax(1) == labels).sum())
    interval = binomtest(correct, n).proportion_ci(confidence_level=0.95, method="wilson")
    of_truth = np.clip(probabilities[np.arange(n), labels], EPSILON, 1 - EPSILON)
    return {
        "n": n,
        "correct": correct,
        "accuracy": correct / n,
        "ci95": [float(interval.low), float(interval.high)],
        "log_loss": float(-np.log(of_truth).mean()),
    }


def per_class(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """For each class: `n` images of it, `precision`, `recall` and `f1`; None where undefined.

    Precision is the part of the images given this class that are of it, recall the part of its images
    that are given it, f1 their harmonic mean.
    """
    cells = np.array(_confusion(probabilities, labels))
    right, true, given = cells.diagonal(), cells.sum(1), cells.sum(0)
    rows: dict[str, dict[str, Any]] = {}
    for place, name in enumerate(classes):
        hits, of_class, as_class = int(right[place]), int(true[place]), int(given[place])
        rows[name] = {
            "n": of_class,
            "precision": hits / as_class if as_class else None,
            "recall": hits / of_class if of_class else None,
            "f1": 2 * hits / (of_class + as_class) if of_class + as_class else None,
        }
    return rows


def _auroc(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float | None:
    import torch
    from torchmetrics.functional.classification import binary_auroc, multiclass_auroc

    classes = probabilities.shape[1]
    if len(np.unique(labels)) < classes:
        return None
    # torchmetrics takes anything outside 0 to 1, if by a rounding error, for logits
    scores, truth = torch.from_numpy(probabilities.clip(0, 1)), torch.from_numpy(labels)
    if classes == 2:
        return float(binary_auroc(scores[:, 1], truth))
    return float(multiclass_auroc(scores, truth, num_classes=classes, average="macro"))


def _calibration_error(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    scores, truth = torch.from_numpy(probabilities.clip(0, 1)), torch.from_numpy(labels)
    classes = probabilities.shape[1]
    return float(multiclass_calibration_error(scores, truth, num_classes=classes, n_bins=BINS, norm="l1"))


def _confusion(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> list[list[int]]:
    classes = probabilities.shape[1]
    cells = np.bincount(labels * classes + probabilities.argmax(1), minlength=classes**2)
    rows: list[list[int]] = cells.reshape(classes, classes).tolist()
    return rows
