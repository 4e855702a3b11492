"""The audited store: records, the sealer that numbers and signs them, the tree, verification.

Business transactions `append` records and take no lock of the ledger; one sealer for each agency
gives them their places in the audit log, grows the RFC 6962 tree and signs checkpoints; anyone who
has the public log key can `verify`.
"""
