"""Files for the mobile builds of onnxruntime: .ort, fixed shapes, what NNAPI and CoreML would run."""
