"""Labels as a PDF. It takes milliseconds a label: call it in a thread, which lets the others have their turn."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloud_core.core.labels import texts
from cloud_core.core.labels.codes import QUIET_MODULES, encoder_of
from cloud_core.core.labels.datamatrix import Matrix, TooLong
from cloud_core.core.labels.sheets import Sheet
from shared.errors import InvalidArgument

SMALLEST_MODULE_MM = 0.25  # two dots of a label printer with 203 dpi
FONT = "DejaVuSansCondensed"
_FONT_FILE = Path(__file__).parent / "fonts" / f"{FONT}.ttf"
_POINTS = 72 / 25.4  # to a millimetre
_GAP_MM = 1.5  # between code and text
_NARROWEST_TEXT_MM = 8.0
_CODE_SHARE = 0.5  # of a label's width at most
_NAME_PT, _DETAIL_PT = (11.0, 5.0), (7.0, 4.5)  # largest and smallest
_NAME_LINES, _DETAIL_LINES = 3, 2
_OVERLAP = 0.02  # of a module: no light line between two rows


@dataclass(frozen=True, slots=True)
class Label:
    """What stands on one. `details`: a line each, below the name."""

    name: str
    details: tuple[str, ...]
    content: str = field(repr=False)  # of the code


def drawn(labels: Sequence[Label], sheet: Sheet, *, code: str, start: int, title: str) -> bytes:
    """Raises: InvalidArgument for a start that the sheet does not have, or a code that cannot be printed on it."""
    from reportlab import rl_config
    from reportlab.pdfgen.canvas import Canvas

    rl_config.useA85 = 0  # bytes as they are: files are smaller by a fifth
    content = io.BytesIO()
    canvas = Canvas(content, pagesize=(sheet.width * _POINTS, sheet.height * _POINTS), pageCompression=1)
    canvas.setTitle(title)
    canvas.setCreator("Muster")
    pen = _Pen(canvas, sheet, code)
    page = 0
    for label, (at, left, top) in zip(labels, sheet.places(len(labels), start), strict=True):
        if at != page:
            canvas.showPage()
            page = at
        pen.draw(label, left, top)
        time.sleep(0)  # the reactor waits for this thread otherwise
    canvas.save()
    return content.getvalue()


class _Pen:
    """Draws labels of one kind on the pages of one document."""

    def __init__(self, canvas: Any, sheet: Sheet, code: str) -> None:
        # `canvas`: reportlab is untyped.
        from reportlab.pdfgen.pathobject import PDFPathObject

        self._path: Any = PDFPathObject
        self._canvas = canvas
        self._sheet = sheet
        self._code = code
        self._encoded = encoder_of(code)
        self._font = _font()
        inner_width = sheet.label_width - 2 * sheet.margin_x
        inner_height = sheet.label_height - 2 * sheet.margin_y
        self._side = min(inner_height, inner_width * _CODE_SHARE)
        self._text_width = inner_width - self._side - _GAP_MM
        if self._text_width < _NARROWEST_TEXT_MM:  # nothing but the code
            self._side, self._text_width = min(inner_width, inner_height), 0.0
        self._inner_height = inner_height

    def draw(self, label: Label, left: float, top: float) -> None:
        sheet = self._sheet
        x, y = left + sheet.margin_x, top + sheet.margin_y
        self._draw_code(label, x, y + (self._inner_height - self._side) / 2)
        if self._text_width:
            self._draw_texts(label, x + self._side + _GAP_MM, y)

    def _draw_code(self, label: Label, left: float, top: float) -> None:
        matrix = self._matrix(label)
        quiet = QUIET_MODULES[self._code]
        module = self._side * _POINTS / (len(matrix) + 2 * quiet)
        canvas = self._canvas
        canvas.saveState()
        canvas.translate(left * _POINTS + quiet * module, (self._sheet.height - top) * _POINTS - quiet * module)
        canvas.scale(module, module)
        canvas.drawPath(self._path(_squares(matrix)), stroke=0, fill=1)
        canvas.restoreState()

    def _matrix(self, label: Label) -> Matrix:
        most = int(self._side / SMALLEST_MODULE_MM) - 2 * QUIET_MODULES[self._code]
        try:
            matrix = self._encoded(label.content)
        except TooLong:
            matrix = ()
        if not 0 < len(matrix) <= most:
            raise InvalidArgument(
                f"The code of '{label.name[:80]}' is too dense to be printed on {self._sheet.name}; use larger labels,"
                " code=datamatrix, or content=name"
            )
        return matrix

    def _draw_texts(self, label: Label, left: float, top: float) -> None:
        """The name, then the details in what it has left, all of it in the middle."""
        width, height = self._text_width * _POINTS, self._inner_height * _POINTS
        details = len(label.details) * _DETAIL_PT[0] * texts.LINE
        blocks = [self._fitted(label.name, width, max(height - details, height / 2), _NAME_PT, _NAME_LINES)]
        rest = height - blocks[0].height
        for one in label.details:
            largest = max(min(_DETAIL_PT[0], blocks[0].size), _DETAIL_PT[1])
            block = self._fitted(one, width, rest, (largest, _DETAIL_PT[1]), _DETAIL_LINES)
            blocks.append(block)
            rest -= block.height
        y = (self._sheet.height - top) * _POINTS - rest / 2
        for block in blocks:
            self._canvas.setFont(FONT, block.size)
            for line in block.lines:
                y -= block.size * texts.LINE
                self._canvas.drawString(left * _POINTS, y + block.size * 0.25, line)

    def _fitted(
        self, text: str, width: float, height: float, sizes: tuple[float, float], max_lines: int
    ) -> texts.Fitted:
        face = self._font.face
        return texts.fitted(
            texts.shown(text, face.charToGlyph), lambda part: float(self._font.stringWidth(part, 1)), width=width,
            height=height, largest=sizes[0], smallest=sizes[1], max_lines=max_lines,
        )  # fmt: skip


def _squares(matrix: Matrix) -> list[str]:
    """PDF's rectangles, a module to a unit, from the top left corner; written here since whole numbers suffice."""
    return [
        f"{start} {-number} {end - start} {-1 - _OVERLAP} re"
        for number, row in enumerate(matrix)
        for start, end in _runs(row)
    ]


def _runs(row: Sequence[bool]) -> list[tuple[int, int]]:
    """Where dark modules begin and end."""
    edges = [at for at in range(len(row) + 1) if (at > 0 and row[at - 1]) != (at < len(row) and row[at])]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _font() -> Any:
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont

    if FONT not in pdfmetrics.getRegisteredFontNames():
        pdfmetrics.registerFont(TTFont(FONT, _FONT_FILE))
    return pdfmetrics.getFont(FONT)
