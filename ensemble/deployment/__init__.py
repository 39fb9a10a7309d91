"""ONNX export, int8 quantization, model card, release gates, running a model."""
