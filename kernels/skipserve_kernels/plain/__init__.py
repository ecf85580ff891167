"""The operations of a model one by one, in torch's own: for any device, and fast on a CPU.

One folder an operation: `op` is what is called, `cpu` its path on a CPU where that differs,
`reference` its meaning, in float32, and `inputs` random ones, both for tests.
"""
