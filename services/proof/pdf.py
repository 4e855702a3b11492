"""The report as a PDF, by fpdf2: plain pages that print well, the same bytes for one report."""

from collections.abc import Sequence
from datetime import datetime

from fpdf import FPDF
from fpdf.enums import XPos, YPos

from services.proof.report import Paragraph, Style

_MARGIN_MM = 20
_SIZES = {Style.TITLE: 16, Style.HEADING: 12, Style.TEXT: 10, Style.POINT: 9, Style.COMMAND: 9}
_LINE_MM = {Style.TITLE: 8, Style.HEADING: 6, Style.TEXT: 5, Style.POINT: 4.4, Style.COMMAND: 5}


class _Pages(FPDF):
    """Pages with their number below."""

    def footer(self) -> None:
        """Write the number of the page."""
        self.set_y(-15)
        self.set_font("Helvetica", size=8)
        self.cell(0, 10, f"{self.page_no()} / {{nb}}", align="C")


def pdf(report: Sequence[Paragraph], made_at: datetime) -> bytes:
    """Return the report as a PDF."""
    pages = _Pages(format="letter")
    pages.set_margin(_MARGIN_MM)
    pages.set_auto_page_break(auto=True, margin=_MARGIN_MM)
    pages.set_creation_date(made_at)
    pages.set_lang("en-US")
    pages.set_title(report[0].text)
    pages.set_producer("noticebus")
    pages.add_page()
    for each in report:
        _write(pages, each)
    return bytes(pages.output())


def _write(pages: FPDF, each: Paragraph) -> None:
    family = "Courier" if each.style is Style.COMMAND else "Helvetica"
    weight = "B" if each.style in (Style.TITLE, Style.HEADING) else ""
    pages.set_font(family, weight, _SIZES[each.style])
    if each.style in (Style.HEADING, Style.TEXT):
        pages.ln(2)
    # The fonts that every reader has know Latin letters alone; all of our words are such.
    text = each.text.encode("latin-1", "replace").decode("latin-1")
    pages.multi_cell(
        0,
        _LINE_MM[each.style],
        f"- {text}" if each.style is Style.POINT else text,
        align="L",
        new_x=XPos.LMARGIN,
        new_y=YPos.NEXT,
    )
