"""What noticebus costs, measured side by side with a peer: `python -m tests.benches --help`."""
