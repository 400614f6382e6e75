"""Sketches of filters: some kilobytes a layer, from which everything follows without the filters."""

from compressor.filters.sketching.cluster import group_on_cluster, sketch_on_cluster
from compressor.filters.sketching.layers import Banks, Part, Source
from compressor.filters.sketching.measured import SketchQuality, quality_of_sketch
from compressor.filters.sketching.running import sketch_all
from compressor.filters.sketching.setting import SketchSetting
from compressor.filters.sketching.sketch import Sketch
from compressor.filters.sketching.sketching import sketch, sketch_part
from compressor.filters.sketching.store_source import Stored
from compressor.filters.sketching.table import Sketches, Skipped

__all__ = [
    "Banks",
    "Part",
    "Sketch",
    "SketchQuality",
    "SketchSetting",
    "Sketches",
    "Skipped",
    "Source",
    "Stored",
    "group_on_cluster",
    "quality_of_sketch",
    "sketch",
    "sketch_all",
    "sketch_on_cluster",
    "sketch_part",
]
