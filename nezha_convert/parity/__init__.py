"""The proof: the converted model beside independent computations of its source.

`oracle` computes NEZHA in NumPy float64 from the source's own tensors; `originals` runs the original programs.
Neither uses any code that converts.
"""
