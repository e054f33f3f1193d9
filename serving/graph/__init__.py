"""Inference graphs: read (`document`), checked (`checks`), decided (`rules`), carried out (`run`), drawn (`drawing`).

Nothing here knows where containers run: `run.GraphRunner` is handed a function that calls one.
"""
