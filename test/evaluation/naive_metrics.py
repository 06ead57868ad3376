"""The metrics written down as their definitions read, by sorting every pixel: slow and exact."""

import numpy as np


def miou(truth, predicted, classes):
    ious = []
    for c in range(classes):
        union = ((truth == c) | ((predicted == c) & (truth != 255))).sum()
        if union:
            ious.append(((truth == c) & (predicted == c)).sum() / union)
    return np.mean(ious)


def ece(confidence, correct, bins=10):
    total = 0.0
    for k in range(bins):
        inside = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        if k == 0:
            inside |= confidence == 0
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - correct[inside].mean())
    return total


def equal_mass_ece(confidence, correct, bins=10):
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, bins)
    return sum(
        len(part) / len(order) * abs(confidence[part].mean() - correct[part].mean())
        for part in parts
        if len(part)
    )


def classwise_ece(probabilities, truth):
    return np.mean([ece(p, truth == c) for c, p in enumerate(probabilities)])


def pavpu(uncertainty, accurate, threshold=None):
    """p(accurate|certain), p(uncertain|inaccurate), PAvPU; NaN where undefined."""
    certain = uncertainty < (uncertainty.mean() if threshold is None else threshold)
    return pavpu_from(certain, accurate)


def pavpu_from(certain, accurate):
    first = accurate[certain].mean() if certain.any() else np.nan
    second = (~certain)[~accurate].mean() if (~accurate).any() else np.nan
    return first, second, ((accurate & certain) | (~accurate & ~certain)).mean()


def auroc(score, positive):
    """By ranks, ties counting half (Mann-Whitney)."""
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    ranks = middle[inverse.reshape(-1)]
    n, m = positive.sum(), (~positive).sum()
    return (ranks[positive].sum() - n * (n + 1) / 2) / (n * m)


def average_precision(score, positive):
    previous, total = 0.0, 0.0
    for threshold in np.unique(score)[::-1]:
        alarm = score >= threshold
        recall = (alarm & positive).sum() / positive.sum()
        total += (recall - previous) * positive[alarm].mean()
        previous = recall
    return total


def fpr95(score, positive):
    for threshold in np.unique(score)[::-1]:
        if (score[positive] >= threshold).mean() >= 0.95:
            return (score[~positive] >= threshold).mean()
    raise AssertionError


def risk_area(score, errors, measure=lambda x: x):
    """Mean over r of the error of the r lowest scores."""
    order = np.argsort(score, kind="stable")
    retained = np.arange(1, len(order) + 1)
    return measure(np.cumsum(errors[order]) / retained).mean()


def ause(score, errors, measure=lambda x: x):
    return risk_area(score, errors, measure) - risk_area(errors, errors, measure)
