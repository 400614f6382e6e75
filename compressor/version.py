"""The version of this library: files note it, and packaging reads it here."""

__version__ = "0.1.0"
