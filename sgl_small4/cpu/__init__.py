"""The CPU as a platform of its own: what SGLang asks of a device, answered on PyTorch and, where it pays, C++."""
