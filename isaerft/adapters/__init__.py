"""Adapters: one file each, all on one small base."""
