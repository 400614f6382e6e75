"""All that an app needs of one model, in one folder."""

from compressor.export.bundle.mobile import mobile
from compressor.export.bundle.report import Bundle

__all__ = ["Bundle", "mobile"]
