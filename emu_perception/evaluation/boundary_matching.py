"""The boundary F-measure odsF: thinned boundaries, matched one to one within a tolerance.

Martin, Fowlkes and Malik, "Learning to Detect Natural Image Boundaries", TPAMI 2004, as the
benchmarks on BSDS and PASCAL-Context use it. A matching here has the most pairs there can be; the
benchmark's code also looks for the shortest ones, which changes no count.
"""

from __future__ import annotations

import numpy as np

from emu_perception.prediction import UNLABELLED

TOLERANCE = 0.0075
"""Largest distance as a fraction of the image's diagonal."""
THRESHOLDS = np.arange(1, 20) / 20
"""Thresholds of the probability of an edge."""


def match_boundaries(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """One frame.

    Args:
        predicted: `(H, W)` float, probability of an edge.
        truth: `(H, W)` uint8: 1 = edge, 0 = none, 255 = unknown.

    Returns:
        `(3, thresholds)`: pixels matched, predicted and true.

    Raises:
        ImportError: scikit-image or SciPy is missing.
    """
    try:
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import maximum_bipartite_matching
        from scipy.spatial import cKDTree
        from skimage.morphology import thin
    except ImportError as error:
        raise ImportError(
            "scoring edges needs scikit-image and scipy: pip install 'emu_perception[train]'"
        ) from error
    known = truth != UNLABELLED
    true = np.argwhere(thin(truth == 1))
    radius = TOLERANCE * float(np.hypot(*truth.shape))
    found = np.zeros((3, len(THRESHOLDS)))
    found[2] = len(true)
    tree = cKDTree(true) if len(true) else None
    for i, threshold in enumerate(THRESHOLDS):
        points = np.argwhere(thin((predicted >= threshold) & known))
        found[1, i] = len(points)
        if tree is None or not len(points):
            continue
        near = cKDTree(points).sparse_distance_matrix(tree, radius, output_type="ndarray")
        pairs = (np.ones(len(near), np.int8), (near["i"], near["j"]))
        graph = csr_matrix(pairs, shape=(len(points), len(true)))
        found[0, i] = np.count_nonzero(maximum_bipartite_matching(graph, "column") >= 0)
    return found


def optimal_f(matches: np.ndarray) -> float | None:
    """F at the threshold that is best for the whole set (ODS); None without any edge.

    Args:
        matches: the sum of `match_boundaries` over frames.
    """
    matched, predicted, true = matches
    if not true.any():
        return None
    # 2PR / (P + R), with P = matched / predicted and R = matched / true.
    return float((2 * matched / (predicted + true)).max())
