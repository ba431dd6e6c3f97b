"""The source, read a second time.

`verify` must not repeat a mistake of the readers that convert, so nothing here comes from `formats` or `mapping`, but
for two guards that give no value: what unpacks an archive, and what bounds the cost of loading a PyTorch file.
"""
