"""Looks after a deployed database: its status, its alignment with the server, its cleanup."""
