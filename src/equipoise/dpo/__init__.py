"""From a mixture of preference pairs to an adapter."""
