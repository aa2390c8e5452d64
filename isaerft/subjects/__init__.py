"""Subjects: a language model and an SAE at one of its hooks, checked, run and described."""
