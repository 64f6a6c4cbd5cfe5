"""Requests in, tokens and scores out: what waits together is encoded, decoded and scored together."""
