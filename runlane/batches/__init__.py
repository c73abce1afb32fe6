"""Batches: files of run requests, from the check of their lines to the results' files."""
