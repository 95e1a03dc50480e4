"""The contract between device, gateway and cloud: values and pure functions.

Nothing here performs input or output, reads a clock or writes a log, and nothing here imports
`cloud_core` or `edge_gateway`.
"""
