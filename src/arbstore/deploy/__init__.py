"""What the command line calls on a deployed database: its status, its alignment with the server, its cleanup."""
