"""What crosses the agency border, and how anyone checks it. Pure: no I/O, no clock, no settings."""
