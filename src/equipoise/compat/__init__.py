"""The command lines of the original program: flags in, a recipe out, and a run.

`flags.py` knows the flags, `translate.py` turns them into a recipe (pure), `staged.py` goes on from an earlier stage's
run, `program.py` shows, saves and runs. The three scripts in `compat/` are thin.
"""
