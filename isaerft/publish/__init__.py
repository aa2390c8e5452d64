"""Publishing: verdicts go back to where the explanations came from, and to whoever wants to use them."""

from isaerft.publish.files import Folder, dataset_folder, export_folder, write_folder
from isaerft.publish.lists import LatentList, lists_of, read_lists, send_lists
from isaerft.publish.verdicts import PUBLISHED, Verdicts, read_verdicts

__all__ = [
    "PUBLISHED",
    "Folder",
    "LatentList",
    "Verdicts",
    "dataset_folder",
    "export_folder",
    "lists_of",
    "read_lists",
    "read_verdicts",
    "send_lists",
    "write_folder",
]
