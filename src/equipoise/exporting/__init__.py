"""From a finished run to a folder that others can use: adapter or merged model, with a model card, checked."""
