"""The networks that are measured: torchvision, timm and transformers, without weights."""

from benchmarks.zoo.entry import BATCH, Entry, Inputs, one_by_one, outputs, taken
from benchmarks.zoo.places import ROOT, Missing, add_shared_option, import_torchvision, shared_folder
from benchmarks.zoo.torchvision import FAMILIES, N_CLASSES, build, example, heads, networks

__all__ = [
    "BATCH",
    "FAMILIES",
    "N_CLASSES",
    "ROOT",
    "Entry",
    "Inputs",
    "Missing",
    "add_shared_option",
    "build",
    "example",
    "heads",
    "import_torchvision",
    "networks",
    "one_by_one",
    "outputs",
    "shared_folder",
    "taken",
]
