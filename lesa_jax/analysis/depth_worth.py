"""What more layers are worth by the law of depth, for models that are trained from nothing.

Depth's part of the loss is c l^-a nats a token for l layers (arXiv 2602.05970), fitted here to Chinchilla's runs by
`experiments/depth_law/chinchilla.py`. What it says of l and l' layers is their difference. Their widths, tokens and
floor do not matter for that; that models of other widths and data follow the same curve is an assumption.
"""

import numpy as np

# ln c and a, and their covariance: of 203 runs, two parameters of seven.
LOG_PREFACTOR, EXPONENT = 1.90526221, 1.3251275
COVARIANCE = np.array([[0.42909293, 0.1870353], [0.1870353, 0.08230649]])
DEPTHS = (12, 48)  # of the runs, which end at 47: beyond them the law says nothing that was measured


def worth(layers: int, grown: int) -> tuple[float, float] | None:
    """By how much the loss of the deeper model is lower, nats a token, and the standard error of that.

    Args:
      layers, grown: depths of two models trained alike from nothing.

    Returns:
      None where the law's runs do not reach.
    """
    if not DEPTHS[0] <= layers < grown <= DEPTHS[1]:
        return None
    logs = np.log([layers, grown])
    parts = np.exp(LOG_PREFACTOR - EXPONENT * logs)
    slope = np.array([parts[0] - parts[1], (parts * logs)[1] - (parts * logs)[0]])
    return float(slope[0]), float(np.sqrt(slope @ COVARIANCE @ slope))
