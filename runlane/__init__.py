"""Durable tool-calling runs on Temporal."""
