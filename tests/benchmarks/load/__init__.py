"""Load clients: each is a program of its own that prints one line of JSON.

They import the standard library only, never the product: what they send is encoded here, byte by byte, so
that a fault of the product's own codecs cannot hide in its own measurement.
"""
