"""ONNX files: reading, feeding and comparing them, and the tools of onnxruntime, kept quiet."""
