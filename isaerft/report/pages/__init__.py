"""HTML pages: one for each table, answers before and after, and the summary that a researcher reads first."""

from isaerft.report.pages.answers import answers_page
from isaerft.report.pages.summary import summary_page
from isaerft.report.pages.table import table_page

__all__ = ["answers_page", "summary_page", "table_page"]
