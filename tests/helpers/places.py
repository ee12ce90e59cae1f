"""Where things lie in the repository."""

from pathlib import Path


ROOT = Path(__file__).parents[2]
HELPERS = Path(__file__).parent
GOLDEN = ROOT / "tests" / "golden"
