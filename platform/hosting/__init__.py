"""How endpoints change, sleep and are scaled: the moves of their records, and the reconciler's parts that make them."""
