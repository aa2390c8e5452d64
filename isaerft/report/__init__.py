"""Figures and pages for readers, made from the tables of results/{study}/tables/ and from nothing else.

Every number shown stands in a table or is a count, a median, a quantile or an extreme of numbers that do; every result
stands beside its controls. Undefined is shown as a dash, never as 0.
"""
