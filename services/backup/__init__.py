"""Backups of an agency's store, restores that never continue a ledger, and what both need.

A backup is one encrypted and signed file of one moment. A restored store refuses every change until
a person adopts it: then a new generation begins, with a new log whose record 0 names the old one,
and what the other agency has seen shows what is missing here.
"""
