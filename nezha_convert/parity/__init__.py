"""Numeric parity: what a conversion is measured against.

`oracle` computes NEZHA in NumPy float64 from the source's own tensors; `originals` runs the original programs.
Neither shares anything with the code that converts.
"""
