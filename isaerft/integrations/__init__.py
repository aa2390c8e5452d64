"""Adapters inside other people's programs."""
