"""How far a measured share can be believed."""

from __future__ import annotations

import math
from statistics import mean, stdev
from typing import TYPE_CHECKING

from scipy.stats import binomtest, t

if TYPE_CHECKING:
    from collections.abc import Sequence


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, after Wilson (1927, https://doi.org/10.1080/01621459.1927.10502953).

    Args:
        successes: How often it was right.
        trials: How often it was tried.

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        ValueError: There are no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(
            f"expected 0 to trials successes in at least one trial, got {successes} in {trials}"
        )
    interval = binomtest(successes, trials).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def fold_interval(scores: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of a score from a cross-validation, after Nadeau and Bengio.

    Training sets of a cross-validation overlap, so its folds differ less than independent
    experiments would; the variance of their mean is therefore taken as ``(1 / k + 1 / (k - 1))``
    times that of the folds instead of ``1 / k`` (https://doi.org/10.1023/A:1024068626366, section
    3; 1 / (k - 1) is the ratio of test to other images).

    Args:
        scores: Score of each of the k folds; the mean over the seeds where there are several.

    Returns:
        Lower and upper end; not cut at 0 and 1.

    Raises:
        ValueError: There are fewer than two folds.
    """
    k = len(scores)
    if k < 2:
        raise ValueError(f"expected the scores of at least 2 folds, got {k}")
    half = float(t.ppf(0.975, k - 1)) * stdev(scores) * math.sqrt(1 / k + 1 / (k - 1))
    return mean(scores) - half, mean(scores) + half
