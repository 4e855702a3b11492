"""Statements of replay: messages in their order, plans, and selections under a name."""
