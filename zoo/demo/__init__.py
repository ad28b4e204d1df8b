"""A page on which checkpoints sample, walk, reconstruct and translate: `zoo demo` serves it.

The page itself (page/) runs functions in the serving process, or as ONNX files in the browser: models.json says which.
"""
