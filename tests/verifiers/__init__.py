"""Verifiers that nobody here wrote, held against what two agencies made and against spoilt copies.

`make verifiers` runs it. Each tool comes from PyPI, npm or Debian into an environment of its own,
pinned by hash, and is asked the same two things: does it accept ours, and does it refuse a copy in
which one thing was changed. A tool that cannot be had fails; nothing is skipped.
"""
