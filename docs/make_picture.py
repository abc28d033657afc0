"""Draw docs/how-it-works.svg, the picture in the README: who sends what to whom in a round.

Run it after a change; a test fails until the file is up to date. Numbers are made up, but add up: masked numbers are taken
modulo 1000, so that a masked one can be any.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

PICTURE: Final = Path(__file__).parent / "how-it-works.svg"
WIDTH, HEIGHT = 760, 400
MODULUS: Final = 1000
#: Name, own number, mask.
OWNERS: Final = (("Hospital A", 120, 731), ("Hospital B", 80, 544), ("Hospital C", 100, 318))
INK, QUIET, SECRET, HIDDEN, SHARED = "#1f2937", "#4b5563", "#b45309", "#374151", "#0f766e"


def text(
    x: int, y: int, content: str, colour: str = INK, size: int = 15, weight: str = "normal", anchor: str = "middle"
) -> str:
    """Return one line of text."""
    place = f'x="{x}" y="{y}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" font-size="{size}" font-weight="{weight}">{content}</text>'


def box(x: int, y: int, width: int, height: int, colour: str) -> str:
    """Return a box with round corners."""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" fill="#ffffff" stroke="{colour}" stroke-width="2"/>'


def arrow(x: int, y: int, to_x: int, to_y: int, colour: str, dashes: str = "none") -> str:
    """Return an arrow; its head is defined once for each colour."""
    return (
        f'<path d="M{x} {y} L{to_x} {to_y}" stroke="{colour}" stroke-width="2" fill="none" stroke-dasharray="{dashes}" '
        f'marker-end="url(#head{colour[1:]})"/>'
    )


def picture() -> str:
    """Return the drawing as SVG."""
    masked = [(number + mask) % MODULUS for _, number, mask in OWNERS]
    mask_sum = sum(mask for _, _, mask in OWNERS) % MODULUS
    total = (sum(masked) - mask_sum) % MODULUS
    parts = []
    for index, (name, number, mask) in enumerate(OWNERS):
        y = 24 + 122 * index
        parts += [
            box(20, y, 170, 92, INK),
            text(105, y + 24, name, weight="bold"),
            text(105, y + 45, f"its number {number}", SECRET),
            text(105, y + 64, f"+ a random mask {mask}", QUIET, 13),
            text(105, y + 84, f"= masked {masked[index]}", HIDDEN, 14, "bold"),
            arrow(190, y + 40, 396, 98 + 14 * index, HIDDEN),
            arrow(190, y + 66, 396, 290 + 14 * index, QUIET, "5 4"),
        ]
    parts += [
        box(400, 56, 190, 106, HIDDEN),
        text(495, 82, "Coordinator", weight="bold"),
        text(495, 108, f"{' + '.join(str(value) for value in masked)}", HIDDEN, 14),
        text(495, 130, f"= {sum(masked) % MODULUS}", HIDDEN, 14),
        text(495, 151, "sees no number of anybody", QUIET, 12),
        box(400, 262, 190, 92, QUIET),
        text(495, 288, "Sum participant", weight="bold"),
        text(495, 313, f"sum of the masks {mask_sum}", QUIET, 14),
        text(495, 338, "sees masks only", QUIET, 12),
        arrow(495, 262, 495, 166, QUIET, "5 4"),
        text(504, 218, f"\N{MINUS SIGN} {mask_sum}", QUIET, 14, "normal", "start"),
        arrow(590, 109, 626, 109, SHARED),
        box(630, 56, 112, 106, SHARED),
        text(686, 82, "Everybody", SHARED, weight="bold"),
        text(686, 108, f"sum {total}", SHARED, weight="bold"),
        text(686, 130, f"mean {total // len(OWNERS)}", SHARED, weight="bold"),
        text(280, 38, "masked numbers", HIDDEN, 13),
        text(300, 374, "masks, sealed", QUIET, 13),
        text(570, 390, f"additions modulo {MODULUS}: a masked number can be any", QUIET, 12),
    ]
    heads = "".join(
        f'<marker id="head{colour[1:]}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{colour}"/></marker>'
        for colour in (HIDDEN, QUIET, SHARED)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="Helvetica, Arial, sans-serif" role="img">\n'
        "<title>Hospitals send masked numbers to a coordinator and masks to a sum participant; only the sum comes out</title>\n"
        f'<defs>{heads}</defs>\n<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
