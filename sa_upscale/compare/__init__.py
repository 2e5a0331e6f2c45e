"""Several pictures of one thing, held against each other: a page to look at, a contact sheet, and a blind test.

found = compare([Path("bicubic.png"), Path("ours.png")], reference=Path("hr.png"))
write_page(Path("comparison.html"), found)
write_sheet(Path("comparison.png"), found)
"""

from sa_upscale.compare.blind import Opinion, Preference, opinions, preferences, write_test
from sa_upscale.compare.comparing import Comparison, compare
from sa_upscale.compare.gallery import Gallery
from sa_upscale.compare.regions import Region
from sa_upscale.compare.writing import write_page, write_sheet

__all__ = [
    "Comparison",
    "Gallery",
    "Opinion",
    "Preference",
    "Region",
    "compare",
    "opinions",
    "preferences",
    "write_page",
    "write_sheet",
    "write_test",
]
