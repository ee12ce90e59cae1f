"""
Defines the style of all pictures of the package, which are drawn without a display.

The background is opaque white and the text nearly black, independent of the page and of the user's matplotlib style.
With a transparent background, a picture that must be readable on light and on dark pages could use only greys and half
of the colours.
"""

import textwrap

import matplotlib.style
from cycler import cycler


# sequential, with uniform lightness steps, and also readable by colour-blind people
COLOUR_MAP = "cividis"
# the colours of Okabe and Ito, which colour-blind people can distinguish, that have a contrast of 3:1 to white
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
FONT_SIZE = 9
SMALL_FONT_SIZE = 8
STYLE = {
    "axes.facecolor": "#FFFFFF",
    "axes.edgecolor": "#555555",
    "axes.grid": False,
    "axes.labelsize": FONT_SIZE,
    "axes.prop_cycle": cycler(color=LINE_COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": FONT_SIZE + 1,
    "figure.dpi": 150,
    "figure.facecolor": "#FFFFFF",
    "figure.titlesize": FONT_SIZE + 1,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": FONT_SIZE,
    "grid.alpha": 0.3,
    "image.cmap": COLOUR_MAP,
    "legend.fontsize": SMALL_FONT_SIZE,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "savefig.dpi": "figure",
    "text.color": "#222222",
    "text.parse_math": False,  # a dollar sign in a class or file name does not start a formula
    "xtick.labelsize": SMALL_FONT_SIZE,
    "ytick.labelsize": SMALL_FONT_SIZE,
}
# decorator of the drawing functions: sets this style, and leaves the user's own settings unchanged
styled = matplotlib.style.context(["default", STYLE])


def text_width(text: str, font_size: float = FONT_SIZE) -> float:
    """Return the approximate width of a text, in inches."""
    return len(text) * 0.6 * font_size / 72


def wrapped(title: str, width: float) -> str:
    """Break the lines of a title at the width of the figure, in inches."""
    columns = int(width / text_width("x", FONT_SIZE + 1))
    return "\n".join(line for part in title.splitlines() for line in textwrap.wrap(part, columns))


__all__ = ["COLOUR_MAP", "FONT_SIZE", "LINE_COLOURS", "SMALL_FONT_SIZE", "STYLE", "styled", "text_width", "wrapped"]
