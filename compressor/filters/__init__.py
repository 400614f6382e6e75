"""Filter analysis: what the filters of a network, or of a billion networks' layers, are worth."""

from compressor.filters.bank import FilterBank, kernel_matrix
from compressor.filters.basis import Basis
from compressor.filters.depths import conv_depths
from compressor.filters.model_report import FilterReport, report, report_of
from compressor.filters.modules import banks
from compressor.filters.moments import Moments
from compressor.filters.onnx_files import banks_of_onnx, read_onnx
from compressor.filters.phenotypes import Phenotype, phenotype
from compressor.filters.quality import Bounds, Population, Quality, Verdict
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
    "FilterBank",
    "FilterReport",
    "Layer",
    "Moments",
    "Phenotype",
    "Population",
    "Quality",
    "Store",
    "StoreWriter",
    "StreamedLayer",
    "Verdict",
    "banks",
    "banks_of_onnx",
    "conv_depths",
    "extract",
    "import_filter_db",
    "kernel_matrix",
    "phenotype",
    "read_onnx",
    "report",
    "report_of",
    "verify_store",
]
