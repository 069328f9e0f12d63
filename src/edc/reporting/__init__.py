"""The record of runs, and everything made of it: tables, figures, the report."""
