"""
The look that every picture of the package shares, drawn without a display.

The background is opaque white and the text near black, whatever the page or the user's matplotlib style: a picture
that is seen on light and on dark pages with no background of its own could only have greys and half of the colours.
"""

import textwrap

import matplotlib.style
from cycler import cycler


# sequential, even in lightness, and read alike by colour-blind eyes
COLOUR_MAP = "cividis"
# those of Okabe and Ito's colours, which colour-blind eyes tell apart, that stand out from white by 3 to 1
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
    "font.family": "DejaVu Sans",  # comes with matplotlib, hence the same everywhere
    "font.size": FONT_SIZE,
    "grid.alpha": 0.3,
    "image.cmap": COLOUR_MAP,
    "legend.fontsize": SMALL_FONT_SIZE,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "savefig.dpi": "figure",
    "text.color": "#222222",
    "text.parse_math": False,  # a dollar sign in the name of a class or file is one
    "xtick.labelsize": SMALL_FONT_SIZE,
    "ytick.labelsize": SMALL_FONT_SIZE,
}
# decorates what draws: every picture looks so, and the user's own settings stay as they are
styled = matplotlib.style.context(["default", STYLE])


def text_width(text: str, font_size: float = FONT_SIZE) -> float:
    """About how wide a text is, in inches."""
    return len(text) * 0.6 * font_size / 72


def wrapped(title: str, width: float) -> str:
    """The lines of a title, broken where the figure's width in inches ends."""
    columns = int(width / text_width("x", FONT_SIZE + 1))
    return "\n".join(line for part in title.splitlines() for line in textwrap.wrap(part, columns))


__all__ = ["COLOUR_MAP", "FONT_SIZE", "LINE_COLOURS", "SMALL_FONT_SIZE", "STYLE", "styled", "text_width", "wrapped"]
