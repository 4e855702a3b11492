"""What can be said of the whole: how often, by which office, how fast, and what is late.

`usage` counts at ICE, which alone knows what was missed; `overdue` works on both sides. Each number
comes from the store's own rows, and making a report is itself on record.
"""
