"""Helpers for every room: atomic files, JSON, hashes, redaction, images, and the command-line parser."""
