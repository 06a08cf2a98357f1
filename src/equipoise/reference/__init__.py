"""What a recipe may say, written for readers and for editors: both are made from the classes of `recipe.py`."""
