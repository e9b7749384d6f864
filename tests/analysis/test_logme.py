"""LogME against the evidence of Bayesian linear regression, written out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from tlkit.analysis.logme import logme


def test_it_is_the_highest_evidence_over_both_precisions():
    generator = np.random.default_rng(1)
    features = generator.normal(size=(30, 4)).astype(np.float32)
    labels = (features[:, 0] + generator.normal(size=30) > 0).astype(np.int64)

    def best(target):
        def negative(logs):
            weight, noise = np.exp(logs)
            covariance = np.eye(30) / noise + features @ features.T.astype(np.float64) / weight
            return -multivariate_normal.logpdf(target, np.zeros(30), covariance) / 30

        return -minimize(negative, np.zeros(2), method="Nelder-Mead").fun

    expected = np.mean([best((labels == label).astype(float)) for label in (0, 1)])
    assert logme(features, labels) == pytest.approx(expected, abs=1e-3)


def test_more_images_than_dimensions_or_fewer_and_useful_features_score_higher():
    generator = np.random.default_rng(2)
    labels = np.arange(60) % 3
    for dimensions in (10, 200):
        noise = generator.normal(size=(60, dimensions)).astype(np.float32)
        useful = noise + 3 * np.eye(3, dimensions, dtype=np.float32)[labels]
        assert logme(useful, labels) > logme(noise, labels) + 0.1
