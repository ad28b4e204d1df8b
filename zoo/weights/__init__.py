"""Pretrained weights, cards and sample grids, listed in index.json."""
