"""The two agencies, the exchange between them, and what both stand on."""
