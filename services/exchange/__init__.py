"""The exchange between the agencies: the same code on both sides.

`outbox` accepts, `relay` numbers and publishes, `delivery` takes, `answers` receipts and refuses,
`gaps` asks again for what is missing, `upkeep` notices what is overdue or was lost by the bus.
"""
