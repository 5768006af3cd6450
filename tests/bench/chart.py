"""A bar chart of figures that differ a hundredfold, as plain SVG with a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

ROW, LABEL, WIDTH, TOP = 34, 330, 900, 56


def draw_chart(figures: Mapping[str, float]) -> str:
    """Bars in the order given; each says its figure."""
    most = math.log10(max(figures.values()) * 1.6)
    scale = (WIDTH - LABEL - 90) / most
    rows = []
    for number, (name, figure) in enumerate(figures.items()):
        y = TOP + number * ROW
        length = max(math.log10(figure) * scale, 4)
        rows.append(
            f'<text x="{LABEL - 12}" y="{y + 19}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{LABEL}" y="{y + 4}" width="{length:.1f}" height="22" rx="4" fill="#0b5cad"/>'
            f'<text x="{LABEL + length + 8:.1f}" y="{y + 19}" font-weight="600">{figure:.1f} ×</text>'
        )
    height = TOP + len(figures) * ROW + 16
    title = "CPU of one launch, in multiples of one raw RSA-2048 signature (logarithmic)"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}" '
        'font-family="system-ui, sans-serif" font-size="14" fill="#17212b">'
        f'<rect width="{WIDTH}" height="{height}" rx="10" fill="#fff"/>'
        f'<text x="20" y="32" font-size="16" font-weight="600">{title}</text>{"".join(rows)}</svg>\n'
    )
