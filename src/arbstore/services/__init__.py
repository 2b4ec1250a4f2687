"""Queries and writes over one session: exchanges, symbols, time series and maintenance."""
