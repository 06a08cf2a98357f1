"""`equipoise init`: from a model, a file of pairs and a few answers to a commented recipe that was checked."""
