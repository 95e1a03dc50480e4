"""Labels of devices: where they are on the sheet, what is printed, and what a scanner reads."""

from __future__ import annotations

import json

import pytest
import zxingcpp
from PIL import Image

from cloud_core.core.labels import datamatrix, texts
from cloud_core.core.labels.codes import DATA_MATRIX, PROVISIONING, QR, content_of, encoder_of
from cloud_core.core.labels.datamatrix import Matrix, TooLong
from cloud_core.core.labels.drawing import Label, drawn
from cloud_core.core.labels.labels import LabelOptions
from cloud_core.core.labels.sheets import SHEETS, Sheet, sheet_of
from shared.credentials import AccessToken, MqttBasic, X509Certificate
from shared.errors import InvalidArgument
from tests.support.labels import codes_of, pages_of, sizes_mm, texts_of


def labels_of(*names: str, content: str | None = None) -> list[Label]:
    return [Label(name, ("a label", "sensor"), content or name) for name in names]


def made(labels: list[Label], sheet: str = "a4-24", code: str = QR, start: int = 1) -> bytes:
    return drawn(labels, sheet_of(sheet), code=code, start=start, title="t")


# -- sheets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sheet", SHEETS.values(), ids=SHEETS)
def test_all_labels_of_a_sheet_are_on_the_paper_and_beside_each_other(sheet: Sheet) -> None:
    """As far from the left edge as from the right, from the top as from the bottom."""
    places = [sheet.place(index) for index in range(sheet.per_page)]
    right, bottom = places[-1][0] + sheet.label_width, places[-1][1] + sheet.label_height
    assert sheet.width - right == pytest.approx(places[0][0], abs=0.01)
    assert sheet.height - bottom == pytest.approx(places[0][1], abs=0.01)
    assert sheet.column_step >= sheet.label_width and sheet.row_step >= sheet.label_height
    assert len(set(places)) == sheet.columns * sheet.rows


def test_labels_begin_at_a_position_of_the_first_sheet() -> None:
    """For sheets that are used in part; the next sheets are filled from their beginning."""
    sheet = sheet_of("a4-24")
    placed = list(sheet.places(26, 23))
    assert placed[:3] == [(0, *sheet.place(22)), (0, *sheet.place(23)), (1, 0.0, 0.5)]
    assert (placed[-1][0], sheet.pages(26, 23), sheet.pages(24, 1), sheet.pages(25, 1)) == (1, 2, 1, 2)
    for start in (0, 25):
        with pytest.raises(InvalidArgument, match="1 to 24"):
            next(sheet.places(1, start))


def test_a_roll_has_one_label_a_page() -> None:
    pdf = made(labels_of("a", "b"), "roll-50x25")
    assert sizes_mm(pdf) == [(50.0, 25.0), (50.0, 25.0)]
    assert codes_of(pdf) == ["a", "b"]


@pytest.mark.parametrize(
    ("options", "fix"),
    [
        ({"sheet": "a5"}, "use a4-24, a4-21, letter-30, or roll-WIDTHxHEIGHT"),
        ({"sheet": "roll-5x400"}, "10 to 300 mm"), ({"start": 25}, "1 to 24"),
        ({"sheet": "roll-50x25", "start": 2}, "1 to 1"),
        ({"code": "ean"}, "qr or datamatrix"), ({"content": "secret"}, "name, or provisioning"),
        ({"first_row": 5, "last_row": 4}, "from and to"), ({"first_row": 0}, "from and to"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_say_what_can(options: dict[str, object], fix: str) -> None:
    with pytest.raises(InvalidArgument, match=fix):
        LabelOptions(**options).checked_sheet()  # type: ignore[arg-type]


# -- codes ----------------------------------------------------------------------------------------


def scanned(matrix: Matrix) -> str:
    quiet, dots = 4, 4
    side = len(matrix) + 2 * quiet
    image = Image.new("L", (side, side), 255)
    for y, row in enumerate(matrix):
        for x, is_dark in enumerate(row):
            image.putpixel((x + quiet, y + quiet), 0 if is_dark else 255)
    formats = [zxingcpp.BarcodeFormat.QRCode, zxingcpp.BarcodeFormat.DataMatrix]
    (code,) = zxingcpp.read_barcodes(
        image.resize((side * dots, side * dots), Image.Resampling.NEAREST), formats=formats
    )
    text: str = code.text
    return text


@pytest.mark.parametrize("kind", [QR, DATA_MATRIX])
@pytest.mark.parametrize("unit", ["Ab3-x", "0123456789", "AB-12", "жΩ", "名", '{"a":1}é'])
def test_a_scanner_reads_what_was_encoded(kind: str, unit: str) -> None:
    """Of many lengths, in any script."""
    encoded, sizes = encoder_of(kind), set()
    for length in (1, 2, 3, 5, 8, 9, 12, 17, 21, 29, 36, 43, 60, 85, 110, 140, 170, 200, 270, 360):
        text = (unit * length)[:length]
        matrix = encoded(text)
        sizes.add(len(matrix))
        assert scanned(matrix) == text
    assert len(sizes) >= 7


@pytest.mark.parametrize("kind", [QR, DATA_MATRIX])
def test_what_no_code_holds_is_refused(kind: str) -> None:
    with pytest.raises(TooLong):
        encoder_of(kind)("x" * 2_400)


def test_every_size_of_data_matrix_is_a_good_code() -> None:
    """Filled to the last codeword: there is no padding then."""
    for symbol in datamatrix._SYMBOLS:
        text = "x" * symbol.data
        assert scanned(datamatrix.encoded(text)) == text


def test_a_code_says_the_name_alone_unless_there_is_more_to_say() -> None:
    """Then JSON with the names of a provision request, which a scanner can send."""
    assert content_of("SN-1") == "SN-1"
    assert json.loads(content_of("SN-1", provision_key="k")) == {"deviceName": "SN-1", "provisionDeviceKey": "k"}
    token = json.loads(content_of("SN-1", credentials=AccessToken("t")))
    assert token == {"deviceName": "SN-1", "token": "t"}
    basic = json.loads(content_of("SN-1", provision_key="k", credentials=MqttBasic("c", "", "p")))
    assert basic == {"deviceName": "SN-1", "provisionDeviceKey": "k", "clientId": "c", "password": "p"}
    assert content_of("SN-1", credentials=X509Certificate("00:11")) == "SN-1"


# -- texts ----------------------------------------------------------------------------------------


def fit(text: str, width: float, height: float, max_lines: int = 3) -> texts.Fitted:
    """In a font whose characters are all as wide as half their size."""
    return texts.fitted(
        text, lambda part: len(part) / 2, width=width, height=height, largest=10, smallest=5, max_lines=max_lines
    )


def test_texts_shrink_then_break_then_end_with_an_ellipsis() -> None:
    """In this order; a break stands behind a space or sign, where there is one."""
    assert fit("abcdef", 30, 12) == (("abcdef",), 10)
    assert fit("abcdef", 15, 12) == (("abcdef",), 5)
    assert fit("north-gate pump", 30, 18) == (("north-", "gate pump"), 6.5)
    cut = fit("x" * 100, 25, 18)
    assert (cut.lines, cut.size) == (("x" * 10, "x" * 10, "x" * 9 + "…"), 5)
    assert fit("abc", 1, 40).lines == () and fit("abc", 40, 2).lines == ()


def test_lines_are_together_the_text() -> None:
    text = "a long name, with-many_parts/of every:kind"
    for width in range(1, 30):
        lines = texts.wrapped(text, lambda part: float(len(part)), width)
        assert "".join(lines) == text and max(map(len, lines)) <= width


def test_what_the_font_does_not_have_is_seen_to_be_missing() -> None:
    """Composed first, so that an accent that comes by itself is no stranger."""
    glyphs = {ord(one) for one in "Aé\ufffd"}
    assert texts.shown("Ae\u0301名\n\u202e", glyphs) == "Aé\ufffd\ufffd\ufffd"


# -- the PDF --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [QR, DATA_MATRIX])
@pytest.mark.parametrize("sheet", [*SHEETS, "roll-50x25", "roll-20x20"])
def test_codes_are_read_back_from_the_sheet(sheet: str, code: str) -> None:
    """Each in its place, whatever the name; printed is what the font has, and the code carries the true name."""
    names = [
        "SN-0001",
        "Насос №12",
        "Αντλία",
        "ポンプ-1",
        "A" * 60,
        "n" * 100,
        "with many words-in it, and/more of them",
    ]
    pdf = made(labels_of(*names), sheet, code)
    assert codes_of(pdf) == names
    if sheet != "roll-20x20":
        printed = texts_of(pdf)
        assert (
            "SN-0001" in printed
            and "Насос №12" in printed
            and "Αντλία" in printed
            and "\ufffd\ufffd\ufffd-1" in printed
        )


def test_a_name_that_does_not_fit_is_cut_and_stays_on_its_label() -> None:
    """Nothing is printed outside of the label's place."""
    pdf = made(labels_of("W" * 255, content="x"), "a4-24", start=5)
    assert "…" in texts_of(pdf)
    (page,) = pages_of(pdf)
    left, top, right, bottom = (edge / 300 * 25.4 for edge in page.convert("L").point(lambda dot: 255 - dot).getbbox())
    assert left >= 70 and right <= 140 and top >= 37.5 and bottom <= 74.5


def test_a_code_that_cannot_be_printed_is_refused_with_the_fix() -> None:
    for content in ("x" * 600, "x" * 9_000):
        with pytest.raises(InvalidArgument, match="'a' is too dense to be printed on roll-50x25; use larger labels"):
            made(labels_of("a", content=content), "roll-50x25")


def test_a_small_label_has_its_code_alone() -> None:
    pdf = made(labels_of("SN-1"), "roll-12x12")
    assert (codes_of(pdf), texts_of(pdf).strip()) == (["SN-1"], "")


def test_a_provision_key_is_content_of_the_code_alone() -> None:
    """It is read by the scanner, and printed nowhere."""
    content = content_of("SN-1", provision_key="secret-looking")
    pdf = made(labels_of("SN-1", content=content), "a4-21")
    assert (codes_of(pdf), "secret" in texts_of(pdf)) == ([content], False)
    assert LabelOptions(content=PROVISIONING).checked_sheet().name == "a4-24"
