"""The blocks of a decoder in Triton kernels, which fuse what stands beside each product."""
