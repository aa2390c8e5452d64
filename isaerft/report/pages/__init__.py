"""HTML pages: one for each table, and the summary that a researcher reads first."""

from isaerft.report.pages.summary import summary_page
from isaerft.report.pages.table import table_page

__all__ = ["summary_page", "table_page"]
