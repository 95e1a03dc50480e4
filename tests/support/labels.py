"""PDFs of labels, looked at as a scanner and a reader would."""

from __future__ import annotations

from typing import Any

import pypdfium2
import zxingcpp

DOTS = 300 / 72  # a dot to a point, at 300 dpi


def pages_of(pdf: bytes) -> list[Any]:
    """Each page as an image."""
    document = pypdfium2.PdfDocument(pdf)
    return [page.render(scale=DOTS).to_pil() for page in document]


def codes_of(pdf: bytes) -> list[str]:
    """What a scanner reads, in the order of the labels."""
    found: list[str] = []
    for page in pages_of(pdf):
        codes = zxingcpp.read_barcodes(page, formats=[zxingcpp.BarcodeFormat.QRCode, zxingcpp.BarcodeFormat.DataMatrix])
        placed = sorted((round(code.position.top_left.y / 100), code.position.top_left.x, code.text) for code in codes)
        found += [text for _, _, text in placed]
    return found


def texts_of(pdf: bytes) -> str:
    """The printed texts of all pages."""
    return "\n".join(page.get_textpage().get_text_range() for page in pypdfium2.PdfDocument(pdf))


def sizes_mm(pdf: bytes) -> list[tuple[float, float]]:
    """Width and height of each page."""
    return [tuple(round(side / 72 * 25.4, 1) for side in page.get_size()) for page in pypdfium2.PdfDocument(pdf)]
