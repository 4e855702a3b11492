"""The consumer: notices arrive, become cases, are taken by people, and get an outcome."""
