"""Statements of backups, restores and archives."""
