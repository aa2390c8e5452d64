"""Publishing: verdicts go back to where the explanations came from, and to whoever wants to use them."""

from isaerft.publish.adapters import PEFT_KIND, adapter_folder, seed_folder
from isaerft.publish.files import Folder, dataset_folder, export_folder, write_folder
from isaerft.publish.lists import LatentList, lists_of, read_lists, send_lists
from isaerft.publish.verdicts import PUBLISHED, Verdicts, read_verdicts

__all__ = [
    "PEFT_KIND",
    "PUBLISHED",
    "Folder",
    "LatentList",
    "Verdicts",
    "adapter_folder",
    "dataset_folder",
    "export_folder",
    "lists_of",
    "read_lists",
    "read_verdicts",
    "seed_folder",
    "send_lists",
    "write_folder",
]
