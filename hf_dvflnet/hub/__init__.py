"""Writes, reads, describes and pushes model folders, and converts published checkpoints."""
