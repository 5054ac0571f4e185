"""Colours, dashes and resolution of all pictures."""

DPI = 100
INK, GRID = "#1c2126", "#e4e4e4"
# Okabe and Ito's colours, which colour-blind readers tell apart; brown and violet for yellow, too light, and black.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a5c00", "#5b3fa8")
# PALETTE for dark paper.
DARK = ("#3b9fe0", "#f07b2e", "#22b98a", "#e29bc4", "#8fd0f7", "#f2b632", "#b5985a", "#a48bea")
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2.5), (1.5, 2), (8, 2, 1.5, 2))  # on, off, ..; () is a full line


def style(position: int) -> tuple[int, int]:
    """Colour and dashes, by number, of what stands at this position after the reference, which has neither."""
    return (position - 1) % len(PALETTE), (position - 1) // len(PALETTE) % len(DASHES)
