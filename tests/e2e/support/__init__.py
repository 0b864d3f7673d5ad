"""What the end-to-end tests start and ask: nginx, Redis, PostgreSQL, engines, and a client that sees every byte."""
