"""Filter analysis: what the filters of a network, or of a billion networks' layers, are worth."""

from compressor.filters.bank import FilterBank, kernel_matrix
from compressor.filters.basis import Basis
from compressor.filters.depths import conv_depths
from compressor.filters.divergence import divergence
from compressor.filters.drift import Drift, Kernels, drift, drift_of_histograms, pooled_basis
from compressor.filters.group_drifts import GroupDrifts, drifts, published_drifts
from compressor.filters.histograms import Histogram, data_limits, fixed_limits
from compressor.filters.layer_drifts import LayerDrift, LayerDrifts, compare
from compressor.filters.model_report import FilterReport, report, report_of
from compressor.filters.modules import banks
from compressor.filters.moments import Moments
from compressor.filters.noise import Noise, noise_floor
from compressor.filters.onnx_files import banks_of_onnx, read_onnx
from compressor.filters.phenotypes import Phenotype, phenotype
from compressor.filters.quality import Bounds, Population, Quality, Verdict
from compressor.filters.sketching import (
    Sketch,
    Sketches,
    SketchSetting,
    group_on_cluster,
    sketch,
    sketch_all,
    sketch_on_cluster,
)
from compressor.filters.store import (
    Layer,
    Store,
    StoreWriter,
    StreamedLayer,
    extract,
    import_filter_db,
    verify_store,
)

__all__ = [
    "Basis",
    "Bounds",
    "Drift",
    "FilterBank",
    "FilterReport",
    "GroupDrifts",
    "Histogram",
    "Kernels",
    "Layer",
    "LayerDrift",
    "LayerDrifts",
    "Moments",
    "Noise",
    "Phenotype",
    "Population",
    "Quality",
    "Sketch",
    "SketchSetting",
    "Sketches",
    "Store",
    "StoreWriter",
    "StreamedLayer",
    "Verdict",
    "banks",
    "banks_of_onnx",
    "compare",
    "conv_depths",
    "data_limits",
    "divergence",
    "drift",
    "drift_of_histograms",
    "drifts",
    "extract",
    "fixed_limits",
    "group_on_cluster",
    "import_filter_db",
    "kernel_matrix",
    "noise_floor",
    "phenotype",
    "pooled_basis",
    "published_drifts",
    "read_onnx",
    "report",
    "report_of",
    "sketch",
    "sketch_all",
    "sketch_on_cluster",
    "verify_store",
]
