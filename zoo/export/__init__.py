"""Models as files that run without this package: ONNX, and programs of `torch.export`.

A file holds one function of a checkpoint, such as `generate` or `log_prob`, as a graph of tensors. What a function
draws at random, its noise, is an input of the graph: the same inputs give the same outputs everywhere.
"""
