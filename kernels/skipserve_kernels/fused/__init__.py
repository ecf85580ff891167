"""The sides of a decoder block in Triton kernels, one launch each: for a GPU.

One folder an operation: `triton` has its kernels and what launches them, `packing` the layout of
its weights, `reference` its meaning, in float32, and `inputs` random ones, both for tests. What
launches are given alike is in `launch` and `paged`.
"""
