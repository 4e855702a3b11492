"""Statements of the ICE side: obligations, notices as people see them, and what HHS replied."""
