"""From sources to one mixture: read, build pairs, clean, mix, order; and the ledger that counts all of it."""
