"""How far a measured share can be believed."""

from __future__ import annotations

import math

# The 97.5 % point of the normal distribution: two-sided 95 %.
_Z = 1.959963984540054


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
        raise ValueError(f"expected 0 to trials successes in at least one trial, got {successes} in {trials}")
    share, z2 = successes / trials, _Z**2
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, centre - half), min(1.0, centre + half)
