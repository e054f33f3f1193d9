"""The API, one module per noun: each function takes a validated request and returns an answer."""
