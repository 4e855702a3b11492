"""Proof bundles: one file by which an outsider checks, offline, what became of notices.

`building` gathers what this agency has of some notices, `checking` holds a bundle to what it says,
and `verify.py`, which travels in each bundle, does the same with nothing but Python and openssl.
"""
