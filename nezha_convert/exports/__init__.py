"""A converted folder as another program's own files, or as an ONNX graph."""
