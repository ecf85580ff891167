"""How one block's operations run on a device. Knows tensors and row indexes, never a policy.

There are two families, which cut a block differently, so that neither stands in for the other:

- `plain`: the operations of a block one by one, in torch's own, on any device. A CPU has a faster
  path where it gains. Rows are compact, results are new tensors.
- `fused`: whole sides of a block in one Triton launch each, on a GPU. A selection says which of a
  forward's rows take part, keys and values lie in pages, results go straight where they are needed.

A model takes one of the two for its decoder and says so: `skipserve.model.plain` or `.fused`. What
both know is here.
"""
