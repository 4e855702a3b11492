"""Random mutations of everything that is kept as evidence; each is found, and its place named.

One pair of agencies makes a ledger on each side once, and hands out bundles, exported folders and
receipts. A mutation then changes one thing in one database as its owner could (triggers off), or in
a copy of what was handed out, is verified by the product's own verification, and is undone.
`make mutations` runs tens of thousands; a seeded sample is a part of `make test`.
"""
