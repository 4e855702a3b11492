"""The exchange's statements: what leaves (`outgoing`), what comes in (`incoming`), parties."""
